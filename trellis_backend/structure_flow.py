"""The flow model of the sparse structure: a transformer on a small dense grid.

B items, R resolution, p patch size, L = (R / p)^3 tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onelook.nn.condition import Condition, as_condition
from onelook.nn.embedders import TimestepEmbedder, place_waves
from onelook.nn.inner_type import inner_type
from onelook.nn.layout import Dense
from onelook.nn.norms import layer_norm
from onelook.nn.patches import patchify, unpatchify
from onelook.nn.transformer import ModulatedCrossBlock, adaln
from trellis_backend.config import FlowConfig, StructureFlowConfig

FINAL_EPS = 1e-5


class SparseStructureFlowModel(nn.Module):
    """(x, t, condition) -> velocity of the structure's latent."""

    def __init__(self, config: StructureFlowConfig):
        super().__init__()
        self.config = config
        width, patch = config.model_channels, config.patch_size
        self.t_embedder = TimestepEmbedder(width)
        if config.share_mod:
            self.adaLN_modulation = adaln(width)
        with torch.device("cpu"):  # on the meta device this would import torch's compiler: 1.5 s
            cells = torch.arange(config.resolution // patch)
            places = place_waves(torch.cartesian_prod(cells, cells, cells), width)
        self.register_buffer("pos_emb", places)
        self.input_layer = nn.Linear(config.in_channels * patch**3, width)
        self.blocks = nn.ModuleList(flow_block(config) for _ in range(config.num_blocks))
        self.out_layer = nn.Linear(width, config.out_channels * patch**3)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | Condition) -> Tensor:
        """x (B, C, R, R, R), t (B,) 0..1000, condition (B or 1, Lk, Ck) -> velocity as x."""
        return self.velocities(x, t, [as_condition(condition)])[0]

    def velocities(self, x: Tensor, t: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
        """The velocity under each of the conditions, for one x and t."""
        tokens = self.input_layer(patchify(x, self.config.patch_size).flatten(2).mT)  # (B, L, C)
        torso_type = inner_type(self.blocks)
        branches = [(tokens + self.pos_emb).to(torso_type)]
        mod = self.t_embedder(t)
        if self.config.share_mod:
            mod = self.adaLN_modulation(mod)
        mod = mod.to(torso_type)
        for block in self.blocks:
            branches = block(branches, mod, conditions, Dense())
        return [self._to_grid(branch.to(x.dtype)) for branch in branches]

    def _to_grid(self, tokens: Tensor) -> Tensor:
        rows = self.out_layer(layer_norm(tokens, FINAL_EPS))  # (B, L, C p^3)
        cells = self.config.resolution // self.config.patch_size
        grid = rows.mT.unflatten(2, (cells, cells, cells))
        return unpatchify(grid, self.config.patch_size).contiguous()


def flow_block(config: FlowConfig) -> ModulatedCrossBlock:
    """One transformer block of a flow model."""
    return ModulatedCrossBlock(
        config.model_channels,
        config.cond_channels,
        config.heads,
        config.mlp_ratio,
        config.qk_rms_norm,
        config.qk_rms_norm_cross,
        config.share_mod,
    )
