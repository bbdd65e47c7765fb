"""What a picture is to the flow models: DINOv3's tokens before its last norm.

Siméoni et al. 2025; the network is transformers' DINOv3ViTModel, opened from its hub folder.

B pictures, S pixels to a side, P patches, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from onelook.foreground.square import square_pixels
from onelook.weights.layouts import folder_weights, read_json
from onelook.weights.opening import fill_model, read_tensors
from trellis2_backend.preparation import frame_subject

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, which the network was trained with
STD = (0.229, 0.224, 0.225)
EPS = 1e-5


class PictureEncoder:
    """Makes the condition of pictures."""

    def __init__(self, network: nn.Module):
        """network: see `open_dino`."""
        self.network = network
        self.width = network.config.hidden_size
        self.blocks = (_layers_path(network),)

    def encode(self, pictures: Sequence[Image.Image], side: int, device: torch.device) -> Tensor:
        """n cut-outs (RGBA), which are framed, or framed pictures (RGB) -> (n, L, C) at `side`
        pixels, a multiple of 16."""
        framed = [frame_subject(one) if one.mode == "RGBA" else one for one in pictures]
        pixels = torch.from_numpy(square_pixels(framed, side)).to(device)
        return encode_pixels(self.network, pixels)


def encode_pixels(encoder: nn.Module, pixels: Tensor) -> Tensor:
    """pixels (B, 3, S, S) float32 0..1 -> condition (B, 5 + P, C).

    Tokens: class, 4 registers, patches row by row; of the last block, then a norm without weights.
    """
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    pixels = (pixels - mean) / std
    places = encoder.rope_embeddings(pixels)
    tokens = encoder.embeddings(pixels)
    for layer in encoder.get_submodule(_layers_path(encoder)):
        tokens = layer(tokens, position_embeddings=places)
    return F.layer_norm(tokens, tokens.shape[-1:], eps=EPS)


def open_dino(folder: Path) -> nn.Module:
    """Open DINOv3 from its hub folder. Raises WeightsError when it is something else."""
    from transformers import DINOv3ViTConfig

    config = DINOv3ViTConfig.from_dict(read_json(folder / "config.json"))
    path = folder_weights(folder)
    with torch.device("meta"):
        encoder = build_dino(config)
    return fill_model(encoder, in_memory(encoder, read_tensors(path)), path.name)


def build_dino(config) -> nn.Module:
    """The network of a transformers' DINOv3ViTConfig, the table it keeps in memory, too."""
    from transformers import DINOv3ViTModel

    encoder = DINOv3ViTModel(config).eval()
    with torch.device("cpu"):  # no checkpoint holds it: empty when made on the meta device
        encoder.rope_embeddings = type(encoder.rope_embeddings)(config)
    return encoder


def in_memory(encoder: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the published keys (`layer.0...`) -> under those of this transformers."""
    prefix = _layers_path(encoder).removesuffix("layer")
    return {prefix * key.startswith("layer.") + key: tensor for key, tensor in tensors.items()}


def _layers_path(encoder: nn.Module) -> str:
    """Transformers 5 has the layers one module deeper than 4."""
    return "layer" if hasattr(encoder, "layer") else "model.layer"
