"""How TRELLIS samples: Euler steps with classifier-free guidance inside an interval of time.

Several pictures need no training: their conditions take turns from step to step (stochastic), or
their velocities are averaged in every step (multidiffusion).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, repeat

import torch
from torch import Tensor

from onelook.nn.condition import Condition
from onelook.nn.flow import Velocity
from onelook.nn.voxels import SparseTensor, Voxels
from trellis_backend.latent_flow import SLatFlowModel
from trellis_backend.structure_flow import SparseStructureFlowModel

# (x, t in 0..1, conditions) -> the velocity under each of them
Velocities = Callable[[Tensor, float, Sequence[Condition]], list[Tensor]]

MULTI_IMAGE_MODES = ("stochastic", "multidiffusion")


@dataclass(frozen=True)
class Guidance:
    """(1 + strength) v - strength v_unconditional, for times in the closed interval.

    The interval is compared with times as `flow_times` gives them, after rescaling.
    """

    strength: float
    interval: tuple[float, float] = (0.0, 1.0)

    def applies(self, t: float) -> bool:
        low, high = self.interval
        return self.strength != 0 and low <= t <= high


@dataclass(frozen=True)
class SamplerParams:
    """The numbers of a sampler, named as in pipeline.json; times: see `flow_times`."""

    steps: int
    cfg_strength: float
    cfg_interval: tuple[float, float]
    rescale_t: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "cfg_interval", tuple(self.cfg_interval))

    @property
    def guidance(self) -> Guidance:
        return Guidance(self.cfg_strength, self.cfg_interval)


def take_turns(conditions: Sequence[Condition], mode: str) -> Iterator[Sequence[Condition]]:
    """Which conditions each step uses, without end. One condition is the same in both modes.

    Raises ValueError for an unknown mode.
    """
    if mode not in MULTI_IMAGE_MODES:
        raise ValueError(f"mode must be one of {', '.join(MULTI_IMAGE_MODES)}, got {mode!r}")
    return ([one] for one in cycle(conditions)) if mode == "stochastic" else repeat(conditions)


def guided_velocity(
    velocities: Velocities,
    turns: Iterator[Sequence[Condition]],
    unconditional: Condition,
    guidance: Guidance,
) -> Velocity:
    """The velocity that a sampler follows, called once per step: the mean over the conditions whose
    turn it is, guided where guidance applies; elsewhere nothing unconditional is computed."""

    def velocity(x: Tensor, t: float) -> Tensor:
        conditions = next(turns)
        if not guidance.applies(t):
            return _mean(velocities(x, t, conditions))
        *guided, free = velocities(x, t, [*conditions, unconditional])
        return (1 + guidance.strength) * _mean(guided) - guidance.strength * free

    return velocity


def structure_velocities(model: SparseStructureFlowModel) -> Velocities:
    """x is (B, C, R, R, R)."""
    return lambda x, t, conditions: model.velocities(x, model_time(t, x), conditions)


def latent_velocities(model: SLatFlowModel, voxels: Voxels) -> Velocities:
    """x is (N, C), row by row on the voxels."""
    return lambda x, t, conditions: model.velocities(
        SparseTensor(x, voxels), model_time(t, x), conditions
    )


def model_time(t: float, like: Tensor) -> Tensor:
    """The time as the networks take it: (1,) float32, for all items of the batch, 0..1000."""
    return torch.tensor([1000 * t], dtype=torch.float32, device=like.device)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else sum(parts) / len(parts)
