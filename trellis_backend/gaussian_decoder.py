"""Decoder of the structured latent to Gaussians.

N voxels, G Gaussians of each, C channels of the latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onelook.nn.voxels import SparseTensor
from trellis_backend.config import GaussianDecoderConfig, GaussianHead
from trellis_backend.gaussians import GaussianConfig, Gaussians, gaussians_of_voxels
from trellis_backend.latent_torso import LatentTorso

CHANNELS = 3 + 3 + 3 + 4 + 1  # of a Gaussian: place, colour, scale, rotation, opacity


class SLatGaussianDecoder(LatentTorso):
    """Latent (N, C) -> N * G Gaussians, voxel by voxel."""

    def __init__(self, config: GaussianDecoderConfig):
        super().__init__(config, config.latent_channels)
        head = config.representation_config
        self.gaussians = GaussianConfig(
            config.resolution,
            head.num_gaussians,
            head.voxel_size,
            head.filter_kernel_size_3d,
            head.scaling_bias,
            head.opacity_bias,
            head.lr["_rotation"],
        )
        self.out_layer = nn.Linear(config.model_channels, head.num_gaussians * CHANNELS)
        with torch.device("cpu"):  # on the meta device this would import torch's compiler: 1.5 s
            self.register_buffer("offset_perturbation", spread_offsets(head))

    def forward(self, x: SparseTensor) -> list[Gaussians]:
        """x (N, C) float32, the latent as decoders expect it -> Gaussians of each item."""
        head = x.with_feats(self.features(x))
        return [
            gaussians_of_voxels(
                item.feats, item.voxels.coords[:, 1:], self.offset_perturbation, self.gaussians
            )
            for item in head.items()
        ]

    def features(self, x: SparseTensor) -> Tensor:
        """(N, C) -> (N, 14 G): the head's output."""
        return self.out_layer(self.normed_torso(x))


def spread_offsets(head: GaussianHead) -> Tensor:
    """(G, 3): where a voxel's Gaussians begin, before tanh; stored in the checkpoint."""
    if not head.perturb_offset:
        return torch.zeros(head.num_gaussians, 3)
    points = hammersley(head.num_gaussians)
    return torch.atanh((2 * points - 1) / head.voxel_size)


def hammersley(count: int) -> Tensor:
    """count points spread over the unit cube: (count, 3) float32, i / count and the radical
    inverses of i in base 2 and 3."""
    points = [(i / count, radical_inverse(2, i), radical_inverse(3, i)) for i in range(count)]
    return torch.tensor(points, dtype=torch.float32)


def radical_inverse(base: int, number: int) -> float:
    """The digits of a number mirrored at the point."""
    value, weight = 0.0, 1.0
    while number:
        weight /= base
        number, digit = divmod(number, base)
        value += digit * weight
    return value
