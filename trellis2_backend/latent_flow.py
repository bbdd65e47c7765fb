"""The flow model of a structured latent, the shape's or the texture's: a transformer on voxels.

N voxels, C channels, B items.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onelook.nn.condition import Condition, as_condition
from onelook.nn.voxels import SparseTensor
from trellis2_backend.flow_transformer import FlowTransformer


class SLatFlowModel(FlowTransformer):
    """(x, t, condition) -> velocity of the latent; for the texture's, the shape's goes beside x."""

    def forward(
        self,
        x: SparseTensor,
        t: Tensor,
        condition: Tensor | Condition,
        beside: Tensor | None = None,
    ) -> Tensor:
        """x (N, C), t (B,) 0..1000, condition (B or 1, Lk, Ck), beside (N, C') -> velocity (N, C).

        The model takes C + C' channels.
        """
        return self.velocities(x, t, [as_condition(condition)], beside)[0]

    def velocities(
        self,
        x: SparseTensor,
        t: Tensor,
        conditions: Sequence[Condition],
        beside: Tensor | None = None,
    ) -> list[Tensor]:
        """The velocity (N, C) under each of the conditions, for one x and t."""
        voxels = x.voxels
        tokens = x.feats if beside is None else torch.cat([x.feats, beside], dim=1)
        phases = voxels.phases(self.config.head_width)
        return self.token_velocities(tokens, t, conditions, voxels.layout, phases)
