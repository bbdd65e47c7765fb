"""How TRELLIS.2 samples: Euler steps, guidance inside an interval of time, held to its size.

Guidance makes samples of too large a spread. The sample that the guided velocity leads to is scaled
to the spread of what the condition alone leads to, in part (Lin et al. 2023, "Common Diffusion
Noise Schedules and Sample Steps are Flawed", section 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onelook.nn.condition import Condition
from onelook.nn.flow import Velocity, straight_sample
from onelook.nn.voxels import SparseTensor, Voxels
from trellis2_backend.latent_flow import SLatFlowModel
from trellis2_backend.structure_flow import SparseStructureFlowModel

# (x, t in 0..1, conditions) -> the velocity under each of them
Velocities = Callable[[Tensor, float, Sequence[Condition]], list[Tensor]]
Spread = Callable[[Tensor], Tensor]  # x -> standard deviation of each item, broadcast against x


@dataclass(frozen=True)
class SamplerParams:
    """The numbers of a sampler, named as in pipeline.json; times: see `flow_times`.

    The velocity is strength * v + (1 - strength) * v_unconditional at times in the closed interval,
    which is compared with times after rescaling, and v elsewhere.
    """

    steps: int
    guidance_strength: float
    guidance_rescale: float
    guidance_interval: tuple[float, float]
    rescale_t: float
    sigma_min: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))

    def strength_at(self, t: float) -> float:
        low, high = self.guidance_interval
        return self.guidance_strength if low <= t <= high else 1.0


def guided_velocity(
    velocities: Velocities,
    condition: Condition,
    unconditional: Condition,
    params: SamplerParams,
    spread: Spread,
) -> Velocity:
    """The velocity that a sampler follows; nothing is computed that does not count."""

    def velocity(x: Tensor, t: float) -> Tensor:
        strength = params.strength_at(t)
        if strength in (0, 1):
            return velocities(x, t, [condition if strength else unconditional])[0]
        with_condition, without = velocities(x, t, [condition, unconditional])
        guided = strength * with_condition + (1 - strength) * without
        if not params.guidance_rescale:
            return guided
        sigma = params.sigma_min
        sample = straight_sample(x, guided, t, sigma)
        wanted = spread(straight_sample(x, with_condition, t, sigma))
        held = sample * (wanted / spread(sample))
        sample = params.guidance_rescale * held + (1 - params.guidance_rescale) * sample
        return ((1 - sigma) * x - sample) / (sigma + (1 - sigma) * t)

    return velocity


def spread_of_grids(x: Tensor) -> Tensor:
    """(B, ...) -> (B, 1, ...): over everything of an item, corrected for its mean."""
    return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)


def spread_of_rows(voxels: Voxels) -> Spread:
    """For (N, C) on voxels -> (N, 1): over all rows of an item, not corrected."""

    def spread(x: Tensor) -> Tensor:
        parts = x.split(voxels.lengths)
        items = torch.stack(
            [(part.square().mean() - part.mean().square()).sqrt() for part in parts]
        )
        return voxels.layout.spread(items[:, None])

    return spread


def structure_velocities(model: SparseStructureFlowModel) -> Velocities:
    """x is (B, C, R, R, R)."""
    return lambda x, t, conditions: model.velocities(x, model_time(t, x), conditions)


def latent_velocities(
    model: SLatFlowModel, voxels: Voxels, beside: Tensor | None = None
) -> Velocities:
    """x is (N, C), row by row on the voxels; beside (N, C'): the shape's latent."""
    return lambda x, t, conditions: model.velocities(
        SparseTensor(x, voxels), model_time(t, x), conditions, beside
    )


def model_time(t: float, like: Tensor) -> Tensor:
    """The time as the networks take it: (1,) float32, for all items of the batch, 0..1000."""
    return torch.tensor([1000 * t], dtype=torch.float32, device=like.device)
