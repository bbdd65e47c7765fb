"""What a picture is to the flow models: DINOv2's tokens before its last norm.

Oquab et al. 2023, Darcet et al. 2023; the network is transformers' Dinov2WithRegistersModel, opened
from its hub folder or from the original file.

B pictures, H and W pixels, P patches, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from onelook.errors import WeightsError
from onelook.nn.condition import Condition
from onelook.weights.layouts import folder_weights, read_json
from onelook.weights.opening import fill_model, read_tensors
from trellis_backend.preparation import encoder_pixels, frame_subject

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, which the network was trained with
STD = (0.229, 0.224, 0.225)
HEAD_WIDTH = 64  # of every published size
EPS = 1e-5

# Key of the original file -> key of transformers, where it is not the same.
_OF_ORIGINAL = (
    (r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"^norm\.", "layernorm."),
)
# Key of a hub file -> key of the network in memory.
_OF_HUB = (
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
)


class PictureEncoder:
    """Makes the condition of pictures; unconditional is a condition of zeros."""

    subject, subject_name = Image.Image, "pictures"
    blocks = ("encoder.layer",)

    def __init__(self, network: nn.Module):
        """network: see `open_dino`."""
        self.network = network
        self.width = network.config.hidden_size

    def encode(self, subjects: Sequence[Image.Image], device: torch.device) -> Tensor:
        """n cut-outs (RGBA), which are framed, or framed pictures (RGB) -> (n, L, C)."""
        framed = [frame_subject(one) if one.mode == "RGBA" else one for one in subjects]
        return encode_pictures(self.network, torch.from_numpy(encoder_pixels(framed)).to(device))

    def unconditional(self, tokens: Tensor) -> Condition:
        """tokens (n, L, C) -> the condition that guidance leads away from."""
        return Condition.zero(tokens)


def encode_pictures(encoder: nn.Module, pixels: Tensor) -> Tensor:
    """pixels (B, 3, H, W) float32 0..1, H and W multiples of 14 -> condition (B, 5 + P, C).

    Tokens: class, 4 registers, patches row by row; of the last block, then a norm without weights.
    """
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    tokens = encoder.embeddings((pixels - mean) / std)
    for layer in encoder.encoder.layer:
        tokens = layer(tokens)
    return F.layer_norm(tokens, tokens.shape[-1:], eps=EPS)


def open_dino(path: Path) -> nn.Module:
    """Open DINOv2 with registers: a hub folder, or the original file (.pth).

    Raises WeightsError when it is neither.
    """
    from transformers import Dinov2WithRegistersConfig

    if path.is_dir():
        config = Dinov2WithRegistersConfig.from_dict(read_json(path / "config.json"))
        path = folder_weights(path)
        tensors = _rename(read_tensors(path), _OF_HUB)
    else:
        original = read_tensors(path)
        config, tensors = config_of(original), transformers_tensors(original)
    with torch.device("meta"):
        encoder = build_dino(config)
    return fill_model(encoder, tensors, path.name)


def build_dino(config) -> nn.Module:
    """The network of a transformers' Dinov2WithRegistersConfig."""
    from transformers import Dinov2WithRegistersModel

    return Dinov2WithRegistersModel(config).eval()


def config_of(original: Mapping[str, Tensor], heads: int | None = None):
    """The config that fits the original file's tensors; heads: from the width when not given.

    Raises WeightsError when a tensor it is read from is missing.
    """
    from transformers import Dinov2WithRegistersConfig

    try:
        _, positions, width = original["pos_embed"].shape
        patch = original["patch_embed.proj.weight"].shape[-1]
        hidden = len(original["blocks.0.mlp.fc1.weight"])
        registers = original["register_tokens"].shape[1]
    except KeyError as error:
        raise WeightsError(
            f"the file has no {error}: it is not DINOv2 with registers; get it with: onelook"
            " weights pull"
        ) from error
    depth = sum(key.endswith(".norm1.weight") for key in original)
    return Dinov2WithRegistersConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads or max(1, width // HEAD_WIDTH),
        mlp_ratio=hidden // width,
        image_size=patch * round((positions - 1) ** 0.5),
        patch_size=patch,
        num_register_tokens=registers,
        layer_norm_eps=1e-6,
    )


def transformers_tensors(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the original file's keys -> the same under transformers' keys."""
    parts: dict[str, Tensor] = {}
    for key, tensor in original.items():
        if ".attn.qkv." in key:
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                parts[key.replace(".attn.qkv.", f".attention.{letter}_proj.")] = third
        else:
            parts[key] = tensor
    return _rename(parts, _OF_ORIGINAL)


def _rename(tensors: Mapping[str, Tensor], rules: tuple) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in tensors.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed
