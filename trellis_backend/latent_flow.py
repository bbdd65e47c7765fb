"""The flow model of the structured latent: a transformer on the occupied voxels.

Convolutions at full resolution bring the voxels to half of it and back; what they compute before
the transformer does not depend on the condition.

N voxels, C channels, B items.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onelook.nn.condition import Condition, as_condition
from onelook.nn.embedders import TimestepEmbedder, place_waves
from onelook.nn.inner_type import inner_type
from onelook.nn.norms import layer_norm
from onelook.nn.resblocks import SparseResBlock
from onelook.nn.transformer import adaln
from onelook.nn.voxels import SparseTensor
from trellis_backend.config import LatentFlowConfig
from trellis_backend.structure_flow import FINAL_EPS, flow_block


class SLatFlowModel(nn.Module):
    """(x, t, condition) -> velocity of the structured latent."""

    def __init__(self, config: LatentFlowConfig):
        super().__init__()
        self.config = config
        width = config.model_channels
        widths = [*config.io_block_channels, width]
        plain = config.num_io_res_blocks - 1  # per stage, beside the one that changes resolution
        self.t_embedder = TimestepEmbedder(width)
        if config.share_mod:
            self.adaLN_modulation = adaln(width)
        self.input_layer = nn.Linear(config.in_channels, widths[0])
        self.input_blocks = nn.ModuleList()
        for low, high in zip(widths, widths[1:], strict=False):
            self.input_blocks.extend(SparseResBlock(low, width, low) for _ in range(plain))
            self.input_blocks.append(SparseResBlock(low, width, high, halve=True))
        self.blocks = nn.ModuleList(flow_block(config) for _ in range(config.num_blocks))
        self.out_blocks = nn.ModuleList()  # each takes its input beside the skip of that width
        for low, high in zip(widths[-2::-1], widths[:0:-1], strict=True):
            self.out_blocks.append(SparseResBlock(2 * high, width, low, double=True))
            self.out_blocks.extend(SparseResBlock(2 * low, width, low) for _ in range(plain))
        self.out_layer = nn.Linear(widths[0], config.out_channels)

    def forward(self, x: SparseTensor, t: Tensor, condition: Tensor | Condition) -> Tensor:
        """x (N, C), t (B,) 0..1000, condition (B or 1, Lk, Ck) -> velocity (N, C)."""
        return self.velocities(x, t, [as_condition(condition)])[0]

    def velocities(
        self, x: SparseTensor, t: Tensor, conditions: Sequence[Condition]
    ) -> list[Tensor]:
        """The velocity (N, C) under each of the conditions, for one x and t."""
        torso_type = inner_type(self.blocks)
        emb = self.t_embedder(t).to(torso_type)
        h = x.with_feats(self.input_layer(x.feats).to(torso_type))
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        places = place_waves(h.voxels.coords[:, 1:], self.config.model_channels)
        branches = [h.feats + places.to(torso_type)]
        mod = self.adaLN_modulation(emb) if self.config.share_mod else emb
        for block in self.blocks:
            branches = block(branches, mod, conditions, h.voxels.layout)
        return [self._finish(h.with_feats(branch), skips, emb) for branch in branches]

    def _finish(self, h: SparseTensor, skips: list[SparseTensor], emb: Tensor) -> Tensor:
        skips = skips[::-1]
        next_voxels = [skip.voxels for skip in skips[1:]] + [skips[-1].voxels]
        for block, skip, fine in zip(self.out_blocks, skips, next_voxels, strict=True):
            h = block(h.with_feats(torch.cat([h.feats, skip.feats], dim=1)), emb, fine)
        rows = layer_norm(h.feats, FINAL_EPS)
        return self.out_layer(rows.to(self.out_layer.weight.dtype))
