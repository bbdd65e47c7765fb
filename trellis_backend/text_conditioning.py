"""What a text is to the flow models: the tokens of CLIP's text transformer after its last norm.

Radford et al. 2021; the network is transformers' CLIPTextModel, opened from the hub folder of a
whole CLIP.

n prompts, L = 77 tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from onelook.errors import WeightsError
from onelook.nn.condition import Condition
from onelook.weights.layouts import folder_weights, read_json
from onelook.weights.opening import fill_model, read_tensors


class TextEncoder:
    """Makes the condition of prompts; unconditional is that of the empty text."""

    subject, subject_name = str, "text"
    blocks = ("encoder.layers",)

    def __init__(self, network: nn.Module, tokenizer):
        """network and tokenizer: see `open_clip`."""
        self.network = network
        self.tokenizer = tokenizer
        self.width = network.config.hidden_size

    def encode(self, subjects: Sequence[str], device: torch.device) -> Tensor:
        """n prompts -> (n, L, C); what is longer than L tokens is cut off."""
        tokens = self.tokenizer(
            list(subjects),
            max_length=self.network.config.max_position_embeddings,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        # No mask: the flow models were trained with the padding's tokens.
        return self.network(input_ids=tokens["input_ids"].to(device)).last_hidden_state

    def unconditional(self, tokens: Tensor) -> Condition:
        """tokens (n, L, C) -> the condition that guidance leads away from."""
        return Condition(self.encode([""], tokens.device))


def open_clip(folder: Path) -> TextEncoder:
    """Open the text half of a CLIP in its hub folder.

    Raises WeightsError when a file is missing, damaged or of another network.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    config = read_json(folder / "config.json")
    weights = folder_weights(folder)
    text = CLIPTextConfig.from_dict(config.get("text_config", config))
    with torch.device("meta"):
        network = CLIPTextModel(text)
    positions = torch.arange(text.max_position_embeddings)
    network.embeddings.position_ids = positions[None]  # in no file
    tensors = read_tensors(weights, prefix="text_model.", ignore=["position_ids"])
    fill_model(network, tensors, weights.name)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(
            "the tokenizer of CLIP needs vocab.json and merges.txt beside its weights; get them"
            " with: onelook weights pull"
        ) from error
    return TextEncoder(network, tokenizer)
