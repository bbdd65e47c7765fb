"""Embeddings of time and place by sines and cosines.

Their frequencies are computed where they are used: a table that is neither parameter nor stored
buffer would stay empty when a checkpoint is opened on the meta device.

N points, C channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimestepEmbedder(nn.Module):
    """A point in time as a vector: sines and cosines, then a small MLP."""

    def __init__(self, channels: int, frequency_channels: int = 256):
        super().__init__()
        self.frequency_channels = frequency_channels
        self.mlp = nn.Sequential(
            nn.Linear(frequency_channels, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, t: Tensor) -> Tensor:
        """t (B,), 0..1000 -> (B, C)."""
        waves = time_waves(t, self.frequency_channels)
        return self.mlp(waves.to(self.mlp[0].weight.dtype))


def time_waves(t: Tensor, channels: int, longest: float = 10000.0) -> Tensor:
    """t (B,) -> (B, channels) float32: cosines, then sines, of falling frequencies 1..1/longest."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t[:, None].float() * torch.exp(-math.log(longest) * steps / half)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, channels - 2 * half))


def place_waves(coords: Tensor, channels: int) -> Tensor:
    """coords (N, 3), not normalised -> (N, channels) float32.

    Per axis the sines, then the cosines, of x / 10000^(i/n), n = channels // 6; zeros at the end.
    """
    n = channels // coords.shape[-1] // 2
    steps = torch.arange(n, dtype=torch.float32, device=coords.device) / n
    angles = coords[..., None].float() * (1.0 / 10000.0**steps)  # (N, 3, n)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)  # (N, 6 n)
    return F.pad(waves, (0, channels - waves.shape[1]))
