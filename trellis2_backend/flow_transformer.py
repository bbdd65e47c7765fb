"""What TRELLIS.2's flow models share: a transformer whose tokens know their places as rotations.

Tokens are (B, L, C) on the structure's dense grid and (T, C) on voxels; see `onelook.nn.layout`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from onelook.nn.condition import Condition
from onelook.nn.embedders import TimestepEmbedder
from onelook.nn.inner_type import inner_type
from onelook.nn.layout import Layout
from onelook.nn.norms import layer_norm
from onelook.nn.rotary import Rotated
from onelook.nn.transformer import ModulatedCrossBlock, adaln
from trellis2_backend.config import FlowConfig

FINAL_EPS = 1e-5


class FlowTransformer(nn.Module):
    """Tokens in, tokens out; the subclasses say where tokens lie."""

    def __init__(self, config: FlowConfig):
        super().__init__()
        self.config = config
        width = config.model_channels
        self.t_embedder = TimestepEmbedder(width)
        if config.share_mod:
            self.adaLN_modulation = adaln(width)
        self.input_layer = nn.Linear(config.in_channels, width)
        self.blocks = nn.ModuleList(
            ModulatedCrossBlock(
                width,
                config.cond_channels,
                config.heads,
                config.mlp_ratio,
                config.qk_rms_norm,
                config.qk_rms_norm_cross,
                config.share_mod,
                shift_mod=True,
            )
            for _ in range(config.num_blocks)
        )
        self.out_layer = nn.Linear(width, config.out_channels)

    def token_velocities(
        self,
        tokens: Tensor,
        t: Tensor,
        conditions: Sequence[Condition],
        layout: Layout,
        phases: Tensor,
    ) -> list[Tensor]:
        """tokens (..., Cin) float32, t (B,) or (1,) 0..1000, phases: see `Rotated` -> the tokens'
        velocity (..., Cout) under each of the conditions."""
        torso_type = inner_type(self.blocks)
        mod = self.t_embedder(t)
        if self.config.share_mod:
            mod = self.adaLN_modulation(mod)
        mod = mod.to(torso_type)
        branches = [self.input_layer(tokens).to(torso_type)]
        placed = Rotated(layout, phases)
        for block in self.blocks:
            branches = block(branches, mod, conditions, placed)
        return [self.out_layer(layer_norm(b.to(tokens.dtype), FINAL_EPS)) for b in branches]
