"""What the encoder and the decoders of the structured latent share: a transformer in windows.

N voxels, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from onelook.nn.embedders import place_waves
from onelook.nn.inner_type import inner_type
from onelook.nn.norms import layer_norm
from onelook.nn.transformer import TransformerBlock
from onelook.nn.voxels import SparseTensor
from trellis_backend.config import LatentTorsoConfig
from trellis_backend.structure_flow import FINAL_EPS


class LatentTorso(nn.Module):
    """Rows -> features of the transformer; every second block has its windows shifted by half."""

    def __init__(self, config: LatentTorsoConfig, in_channels: int):
        super().__init__()
        self.config = config
        width = config.model_channels
        self.input_layer = nn.Linear(in_channels, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, config.mlp_ratio)
            for _ in range(config.num_blocks)
        )

    def torso(self, x: SparseTensor) -> Tensor:
        """x (N, C) float32 -> (N, C') in the type of the blocks."""
        places = place_waves(x.voxels.coords[:, 1:], self.config.model_channels)
        h = self.input_layer(x.feats) + places
        h = h.to(inner_type(self.blocks))
        size = self.config.window_size
        for number, block in enumerate(self.blocks):
            shift = size // 2 * (number % 2)
            h = block(h, x.voxels.windows(size, shift).attend)
        return h

    def normed_torso(self, x: SparseTensor) -> Tensor:
        """The same in float32 and normalised, ready for a head."""
        return layer_norm(self.torso(x).to(x.feats.dtype), FINAL_EPS)
