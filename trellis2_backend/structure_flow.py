"""The flow model of the sparse structure: a transformer on a small dense grid.

B items, R resolution, L = R^3 tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from onelook.nn.condition import Condition, as_condition
from onelook.nn.layout import Dense
from onelook.nn.rotary import grid_phases
from trellis2_backend.flow_transformer import FlowTransformer


class SparseStructureFlowModel(FlowTransformer):
    """(x, t, condition) -> velocity of the structure's latent."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | Condition) -> Tensor:
        """x (B, C, R, R, R), t (B,) 0..1000, condition (B or 1, Lk, Ck) -> velocity as x."""
        return self.velocities(x, t, [as_condition(condition)])[0]

    def velocities(self, x: Tensor, t: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
        """The velocity under each of the conditions, for one x and t."""
        size = self.config.resolution
        phases = grid_phases(size, self.config.head_width).to(x.device)
        tokens = x.flatten(2).mT  # (B, L, C), x slowest
        out = self.token_velocities(tokens, t, conditions, Dense(), phases)
        return [rows.mT.unflatten(2, (size, size, size)).contiguous() for rows in out]
