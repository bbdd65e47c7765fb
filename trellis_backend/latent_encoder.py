"""Encoder of the structured latent: picture features on voxels -> latent. No pipeline needs it."""

from __future__ import annotations

from torch import Tensor, nn

from onelook.nn.voxels import SparseTensor
from trellis_backend.config import LatentEncoderConfig
from trellis_backend.latent_torso import LatentTorso


class SLatEncoder(LatentTorso):
    """Features (N, C) -> the latent's distribution."""

    def __init__(self, config: LatentEncoderConfig):
        super().__init__(config, config.in_channels)
        self.out_layer = nn.Linear(config.model_channels, 2 * config.latent_channels)

    def forward(self, x: SparseTensor) -> tuple[Tensor, Tensor]:
        """x (N, C) float32 -> mean and log variance (N, C') float32."""
        mean, logvar = self.out_layer(self.normed_torso(x)).chunk(2, dim=1)
        return mean, logvar
