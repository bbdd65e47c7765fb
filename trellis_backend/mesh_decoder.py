"""Decoder of the structured latent to the features that a mesh is extracted from.

N voxels, C channels, K channels of a fine voxel.
"""

from __future__ import annotations

from torch import nn

from onelook.nn.resblocks import SubdivideBlock
from onelook.nn.voxels import SparseTensor
from trellis_backend.config import MeshDecoderConfig
from trellis_backend.latent_torso import LatentTorso

# Per fine voxel: sdf and offset of 8 corners, 21 weights of the dual vertices; and of each corner
# colour and normal.
SHAPE_CHANNELS = 8 * 1 + 8 * 3 + 21
COLOR_CHANNELS = 8 * 6


class SLatMeshDecoder(LatentTorso):
    """Latent (N, C) -> features (64 N, K) at four times the resolution."""

    def __init__(self, config: MeshDecoderConfig):
        super().__init__(config, config.latent_channels)
        width = config.model_channels
        self.upsample = nn.ModuleList(
            [SubdivideBlock(width, width // 4), SubdivideBlock(width // 4, width // 8)]
        )
        colors = COLOR_CHANNELS if config.representation_config.use_color else 0
        self.out_layer = nn.Linear(width // 8, SHAPE_CHANNELS + colors)

    @property
    def resolution(self) -> int:
        """Of the fine grid."""
        return 4 * self.config.resolution

    def forward(self, x: SparseTensor) -> SparseTensor:
        """x (N, C) float32, the latent as decoders expect it -> (64 N, K) float32."""
        h = x.with_feats(self.torso(x))
        for block in self.upsample:
            h = block(h)
        return h.with_feats(self.out_layer(h.feats.to(x.feats.dtype)))
