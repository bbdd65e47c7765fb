"""Follow a flow from noise to a sample: Euler steps along a velocity.

Time runs from 1 (noise) to 0 (sample) on the straight path
x_t = (1 - t) x_0 + (sigma + (1 - sigma) t) noise, whose velocity is (1 - sigma) noise - x_0.
Lipman et al. 2022, "Flow Matching for Generative Modeling".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]  # (x, t in 0..1) -> velocity, shaped as x


def flow_times(num_steps: int, rescale_t: float = 1.0) -> list[float]:
    """num_steps + 1 times from 1 to 0, in float64; rescale_t > 1 spends more steps near noise.

    An interval of guidance is closed and compares these numbers, so they must not be rounded.
    Raises ValueError when num_steps is below 1 or rescale_t is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"the number of steps must be at least 1, got {num_steps}")
    if not rescale_t > 0:
        raise ValueError(f"rescale_t must be positive, got {rescale_t}")
    t = np.linspace(1, 0, num_steps + 1)
    return (rescale_t * t / (1 + (rescale_t - 1) * t)).tolist()


def sample_flow(
    velocity: Velocity,
    noise: Tensor,
    times: Sequence[float],
    on_step: Callable[[int, Tensor], object] | None = None,
) -> Tensor:
    """noise -> sample, one velocity per step; on_step(number from 0, x) after each."""
    x = noise
    for number, (t, t_next) in enumerate(pairwise(times)):
        x = x - (t - t_next) * velocity(x, t)
        if on_step:
            on_step(number, x)
    return x


def straight_sample(x: Tensor, velocity: Tensor, t: float, sigma: float = 1e-5) -> Tensor:
    """Where the path would end if it went on straight: the sample predicted at time t."""
    return (1 - sigma) * x - (sigma + (1 - sigma) * t) * velocity
