"""Decoder of the structured latent to Gaussians.

N voxels, G Gaussians of each, K channels of the head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onelook.nn.voxels import SparseTensor
from trellis_backend.config import GaussianDecoderConfig
from trellis_backend.gaussians import Activation, Gaussians
from trellis_backend.latent_torso import LatentTorso

# The head's groups of channels in order, and the shape of a Gaussian's share of each.
GROUPS = {
    "_xyz": (3,),
    "_features_dc": (1, 3),
    "_scaling": (3,),
    "_rotation": (4,),
    "_opacity": (1,),
}


class SLatGaussianDecoder(LatentTorso):
    """Latent (N, C) -> N * G Gaussians, voxel by voxel."""

    def __init__(self, config: GaussianDecoderConfig):
        super().__init__(config, config.latent_channels)
        head = config.representation_config
        if unknown := head.lr.keys() ^ GROUPS.keys():
            raise ValueError(f"lr must name {', '.join(GROUPS)}; differs in {sorted(unknown)}")
        self.head = head
        width = sum(torch.Size(shape).numel() for shape in GROUPS.values())
        self.out_layer = nn.Linear(config.model_channels, head.num_gaussians * width)
        self.register_buffer("offset_perturbation", spread_offsets(head))

    def forward(self, x: SparseTensor) -> list[Gaussians]:
        """x (N, C) float32, the latent as decoders expect it -> Gaussians of each item."""
        return self.to_gaussians(x.with_feats(self.features(x)))

    def features(self, x: SparseTensor) -> Tensor:
        """(N, C) -> (N, K): the head's output."""
        return self.out_layer(self.normed_torso(x))

    def to_gaussians(self, features: SparseTensor) -> list[Gaussians]:
        """Features (N, K) of the head -> Gaussians of each item."""
        head = self.head
        count = head.num_gaussians
        widths = [count * torch.Size(shape).numel() for shape in GROUPS.values()]
        raw = {}
        for (name, shape), part in zip(
            GROUPS.items(), features.feats.split(widths, dim=1), strict=True
        ):
            raw[name] = part.unflatten(1, (count, *shape)) * head.lr[name]  # (N, G, ...)
        centre = (features.voxels.coords[:, 1:].float() + 0.5) / self.config.resolution
        offset = torch.tanh(raw["_xyz"] + self.offset_perturbation)
        reach = 0.5 * head.voxel_size / self.config.resolution
        raw["_xyz"] = centre[:, None] + offset * reach
        activation = Activation(
            head.filter_kernel_size_3d,
            head.scaling_bias,
            head.opacity_bias,
            head.scaling_activation,
        )
        rows = [count * length for length in features.voxels.lengths]
        items = zip(*(part.flatten(0, 1).split(rows) for part in raw.values()), strict=True)
        return [Gaussians(*item, activation) for item in items]


def spread_offsets(head) -> Tensor:
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
