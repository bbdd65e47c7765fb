"""Decoder of the structured latent to a radiance field of trivectors (Strivec).

N voxels, R rank, D samples along a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor, nn

from onelook.nn.voxels import SparseTensor
from trellis_backend.config import RadianceDecoderConfig
from trellis_backend.latent_torso import LatentTorso


@dataclass(frozen=True)
class RadianceField:
    """A sparse voxel grid of trivectors; density is used as stored, without an activation.

    position (N, 3): voxel centres in 0..1, object space plus 0.5 (z up). depth (N, 1) uint8: level
    of the voxels in an octree. trivec (N, R, 3, D), density (N, R), features_dc (N, R, 1, 3).
    """

    position: Tensor
    depth: Tensor
    trivec: Tensor
    density: Tensor
    features_dc: Tensor


class SLatRadianceFieldDecoder(LatentTorso):
    """Latent (N, C) -> radiance field."""

    def __init__(self, config: RadianceDecoderConfig):
        super().__init__(config, config.latent_channels)
        head = config.representation_config
        self.shapes = ((head.rank, 3, head.dim), (head.rank,), (head.rank, 1, 3))
        self.widths = [torch.Size(shape).numel() for shape in self.shapes]
        self.out_layer = nn.Linear(config.model_channels, sum(self.widths))

    def forward(self, x: SparseTensor) -> list[RadianceField]:
        """x (N, C) float32, the latent as decoders expect it -> field of each item."""
        rows = self.out_layer(self.normed_torso(x)).split(self.widths, dim=1)
        trivec, density, features_dc = (
            part.unflatten(1, shape) for part, shape in zip(rows, self.shapes, strict=True)
        )
        position = (x.voxels.coords[:, 1:].float() + 0.5) / self.config.resolution
        level = int(log2(self.config.resolution))
        depth = torch.full_like(position[:, :1], level, dtype=torch.uint8)
        parts = (position, depth, trivec + 1, density, features_dc)
        items = zip(*(part.split(x.voxels.lengths) for part in parts), strict=True)
        return [RadianceField(*item) for item in items]
