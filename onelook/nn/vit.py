"""The image encoder DINO ViT-B/16, plain or modulated by a camera, with its checkpoint's names.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021. InstantMesh and
TripoSR carry it within their own checkpoints. Both read pictures larger than those it was trained
on, with the positions interpolated in a way of their own, see `interpolate_positions`.

B pictures, H and W pixels, P patches, L = 1 + P tokens (class first, patches row by row), C
channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelook.nn.attention import attention
from onelook.nn.norms import LayerNorm

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, which the network was trained with
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ViTConfig:
    """Names as in the hub's config.json; the defaults are facebook/dino-vitb16.

    image_size: of the pictures the table of positions was made for, in pixels.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    image_size: int = 224
    patch_size: int = 16
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                "hidden_size must be a multiple of num_attention_heads, got"
                f" {self.hidden_size} and {self.num_attention_heads}"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                "image_size must be a multiple of patch_size, got"
                f" {self.image_size} and {self.patch_size}"
            )


class ViT(nn.Module):
    """Pictures -> tokens after the last norm, the class token included.

    is_modulated: each layer shifts and scales by a vector (adaLN without gates). has_pooler: the
    checkpoint holds a pooler, which nothing uses.
    """

    def __init__(self, config: ViTConfig, is_modulated: bool = False, has_pooler: bool = False):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(
            ViTLayer(config, is_modulated) for _ in range(config.num_hidden_layers)
        )
        self.layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if has_pooler:
            self.pooler = nn.Module()
            self.pooler.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, pixels: Tensor, modulation: Tensor | None = None) -> Tensor:
        """pixels (B, 3, H, W) normalised, modulation (B, C) -> tokens (B, L, C)."""
        tokens = self.embeddings(pixels)
        for layer in self.encoder.layer:
            tokens = layer(tokens, modulation)
        return self.layernorm(tokens)


class Embeddings(nn.Module):
    """Patches of a picture as tokens, the class token before them, each with its position."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        count = (config.image_size // patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + count, width))
        self.patch_embeddings = nn.Module()
        self.patch_embeddings.projection = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) normalised -> tokens (B, L, C)."""
        grid = self.patch_embeddings.projection(pixels)  # (B, C, H / patch, W / patch)
        patches = grid.flatten(2).transpose(1, 2)  # (B, P, C)
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        return tokens + interpolate_positions(self.position_embeddings, grid.shape[2:])


class ViTLayer(nn.Module):
    """Self attention and MLP, each after a norm; with `is_modulated` the norms' outputs are shifted
    and scaled by the picture's vector."""

    def __init__(self, config: ViTConfig, is_modulated: bool = False):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.attention = nn.Module()
        self.attention.attention = nn.Module()
        for name in ("query", "key", "value"):
            setattr(self.attention.attention, name, nn.Linear(width, width))
        self.attention.output = nn.Module()
        self.attention.output.dense = nn.Linear(width, width)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(width, config.intermediate_size)
        self.output = nn.Module()
        self.output.dense = nn.Linear(config.intermediate_size, width)
        self.layernorm_before = LayerNorm(width, eps=eps)
        self.layernorm_after = LayerNorm(width, eps=eps)
        if is_modulated:
            self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 4 * width))

    def forward(self, tokens: Tensor, modulation: Tensor | None = None) -> Tensor:
        """tokens (B, L, C), modulation (B, C) where the layer is modulated -> (B, L, C)."""
        before, after = self.layernorm_before, self.layernorm_after
        if modulation is None:
            tokens = tokens + self.attend(before(tokens))
            return tokens + self.mlp(after(tokens))
        vectors = self.adaLN_modulation(modulation)[:, None]  # (B, 1, 4 C)
        shift1, scale1, shift2, scale2 = vectors.chunk(4, dim=-1)
        tokens = tokens + self.attend(torch.addcmul(shift1, before(tokens), 1 + scale1))
        return tokens + self.mlp(torch.addcmul(shift2, after(tokens), 1 + scale2))

    def attend(self, tokens: Tensor) -> Tensor:
        """Normed tokens (B, L, C) -> what attention adds to them."""
        parts = self.attention.attention
        q, k, v = (
            part(tokens).unflatten(-1, (self.heads, -1))
            for part in (parts.query, parts.key, parts.value)
        )  # (B, L, heads, C / heads) each
        return self.attention.output.dense(attention(q, k, v).flatten(-2))

    def mlp(self, tokens: Tensor) -> Tensor:
        """Normed tokens (B, L, C) -> what the MLP adds to them."""
        return self.output.dense(F.gelu(self.intermediate.dense(tokens)))


def interpolate_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """table (1, 1 + N^2, C) of a square picture -> positions (1, 1 + rows * columns, C).

    The networks were trained with the scale (size + 0.1) / N given to the bicubic filter, which
    samples a little more densely than fitting the grids' borders would; so it has to stay.
    """
    rows, columns = grid
    side = round((table.shape[1] - 1) ** 0.5)
    if rows == columns == side:
        return table
    square = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, C, N, N)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    patches = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


def normalise_pixels(images: Tensor) -> Tensor:
    """images (B, 3, H, W) 0..1 -> what the network reads."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std
