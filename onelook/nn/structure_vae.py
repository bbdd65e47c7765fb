"""Decoder and encoder of the sparse structure: convolutions on a dense grid.

TRELLIS's; TRELLIS.2 borrows its decoder, checkpoint and all.

B items, C channels, X, Y, Z cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelook.nn.inner_type import inner_type
from onelook.nn.norms import ChannelLayerNorm
from onelook.nn.patches import unpatchify

EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class StructureVaeConfig:
    """channels: widths of the stages in the order they run."""

    latent_channels: int
    num_res_blocks: int
    channels: tuple[int, ...]
    num_res_blocks_middle: int = 2
    norm_type: str = "layer"
    use_fp16: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if self.norm_type != "layer":
            raise ValueError(f"norm_type must be 'layer', got {self.norm_type!r}")


@dataclass(frozen=True, kw_only=True)
class StructureDecoderConfig(StructureVaeConfig):
    out_channels: int


@dataclass(frozen=True, kw_only=True)
class StructureEncoderConfig(StructureVaeConfig):
    in_channels: int


class ResBlock3d(nn.Module):
    """Norm, SiLU, convolution, twice; plus the input."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels, eps=EPS)
        self.norm2 = ChannelLayerNorm(out_channels, eps=EPS)
        self.conv1 = nn.Conv3d(channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1)
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv3d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, C', X, Y, Z)."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(h))) + self.skip_connection(x)


class UpsampleBlock3d(nn.Module):
    """Convolution to eight times the channels, then a pixel shuffle."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv3d(channels, 8 * out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, C', 2 X, 2 Y, 2 Z)."""
        return unpatchify(self.conv(x), 2)


class DownsampleBlock3d(nn.Module):
    """Convolution with stride two."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, C', X / 2, Y / 2, Z / 2)."""
        return self.conv(x)


class SparseStructureDecoder(nn.Module):
    """Latent of the structure -> occupancy logits at four times the resolution."""

    def __init__(self, config: StructureDecoderConfig):
        super().__init__()
        self.config = config
        first, *_, last = config.channels
        self.input_layer = nn.Conv3d(config.latent_channels, first, 3, padding=1)
        self.middle_block = nn.Sequential(
            *(ResBlock3d(first, first) for _ in range(config.num_res_blocks_middle))
        )
        self.blocks = _stages(config.channels, config.num_res_blocks, UpsampleBlock3d)
        self.out_layer = _out_layer(last, config.out_channels)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, C, R, R, R) float32 -> logits (B, 1, 4 R, 4 R, 4 R) float32; occupied above 0."""
        h = self.input_layer(latent).to(inner_type(self.blocks))
        h = self.middle_block(h)
        for block in self.blocks:
            h = block(h)
        return self.out_layer(h.to(latent.dtype))


class SparseStructureEncoder(nn.Module):
    """Occupancy -> latent at a quarter of the resolution. No pipeline needs it."""

    def __init__(self, config: StructureEncoderConfig):
        super().__init__()
        self.config = config
        first, *_, last = config.channels
        self.input_layer = nn.Conv3d(config.in_channels, first, 3, padding=1)
        self.blocks = _stages(config.channels, config.num_res_blocks, DownsampleBlock3d)
        self.middle_block = nn.Sequential(
            *(ResBlock3d(last, last) for _ in range(config.num_res_blocks_middle))
        )
        self.out_layer = _out_layer(last, 2 * config.latent_channels)

    def forward(self, occupancy: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, R, R, R) float32 -> mean and log variance (B, C, R / 4, R / 4, R / 4)."""
        h = self.input_layer(occupancy).to(inner_type(self.blocks))
        for block in self.blocks:
            h = block(h)
        h = self.middle_block(h)
        mean, logvar = self.out_layer(h.to(occupancy.dtype)).chunk(2, dim=1)
        return mean, logvar


def occupied(logits: Tensor, threshold: float = 0.0) -> Tensor:
    """logits (B, 1, X, Y, Z) -> coords (N, 4) int32: item, x, y, z of cells above, ascending."""
    return torch.argwhere(logits[:, 0] > threshold).int()


def coarsened(is_occupied: Tensor, resolution: int) -> Tensor:
    """is_occupied (B, 1, X, X, X) bool -> coords (N, 4) int32 of the cells of a coarser grid of
    `resolution` that hold any, ascending."""
    step = is_occupied.shape[-1] // resolution
    return occupied(F.max_pool3d(is_occupied.float(), step), 0.5)


def _stages(channels: tuple[int, ...], num_res_blocks: int, resample: type) -> nn.ModuleList:
    """Residual blocks of each width, and a change of resolution to the next."""
    blocks: list[nn.Module] = []
    for width, following in pairwise((*channels, None)):
        blocks += [ResBlock3d(width, width) for _ in range(num_res_blocks)]
        if following is not None:
            blocks.append(resample(width, following))
    return nn.ModuleList(blocks)


def _out_layer(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ChannelLayerNorm(channels, eps=EPS),
        nn.SiLU(),
        nn.Conv3d(channels, out_channels, 3, padding=1),
    )
