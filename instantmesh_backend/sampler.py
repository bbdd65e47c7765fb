"""How Zero123++ samples: ancestral Euler steps on a network that predicts v.

The noise levels are those of diffusers' EulerAncestralDiscreteScheduler. Its `step` draws noise in
the network's type on the way, so a seed would mean other views on another device; here all noise of
a request is drawn beforehand, in float32 on the CPU, and the step takes it.

S steps, G guidance lanes (the unconditional one first), h and w of a latent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

# (number of the step, scaled latents (1, 4, h, w)) -> v of every lane (G, 4, h, w)
Denoiser = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Schedule:
    """timesteps (S,) as the network takes them; sigmas (S + 1,), the last 0; float32 on the CPU.
    initial_sigma: of the noise that sampling begins with."""

    timesteps: Tensor
    sigmas: Tensor
    initial_sigma: Tensor

    @staticmethod
    def of_config(config: Mapping[str, Any], steps: int) -> Schedule:
        """config: of the checkpoint's scheduler_config.json; its spacing is replaced by
        "trailing", as the original does.

        Raises ValueError where it does not predict v.
        """
        from diffusers.schedulers.scheduling_euler_ancestral_discrete import (
            EulerAncestralDiscreteScheduler,
        )

        if (predicts := config.get("prediction_type")) != "v_prediction":
            raise ValueError(f"prediction_type must be v_prediction, got {predicts!r}")
        scheduler = EulerAncestralDiscreteScheduler.from_config(
            dict(config), timestep_spacing="trailing"
        )
        scheduler.set_timesteps(steps, device="cpu")
        # For some numbers (61, 103, ...) rounding gives one more, at -1, which no network knows.
        timesteps, sigmas = scheduler.timesteps[:steps], scheduler.sigmas[:steps]
        return Schedule(
            timesteps, torch.cat([sigmas, sigmas.new_zeros(1)]), scheduler.init_noise_sigma
        )

    def __len__(self) -> int:
        return len(self.timesteps)

    def scale(self, noisy: Tensor, step: int) -> Tensor:
        """What the network gets for latents with the noise of a step."""
        return noisy / (self.sigmas[step] ** 2 + 1) ** 0.5

    def noised(self, latents: Tensor, noise: Tensor, step: int) -> Tensor:
        """Clean latents and noise ~ N(0, 1) of their shape -> what the network gets for them."""
        return self.scale(latents + noise * self.sigmas[step], step)


@dataclass(frozen=True)
class Noise:
    """Every random number of a request, N(0, 1), float32.

    encoding (G, 4, h, w of the picture): for the VAE's draws; initial (1, 4, h, w of the views);
    reference (S, G, 4, ...): for the picture of each step; step (S, 1, 4, ...).
    """

    encoding: Tensor
    initial: Tensor
    reference: Tensor
    step: Tensor

    def to(self, device: torch.device) -> Noise:
        return Noise(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def draw_noise(
    seed: int, steps: int, lanes: int, picture: tuple[int, int], views: tuple[int, int]
) -> Noise:
    """picture, views: (h, w) of their latents. In the order in which the original draws: the
    picture's encoding before that of the empty one, then the views, then step by step."""
    generator = Generator().manual_seed(seed)  # CPU: a seed means the same everywhere

    def draw(rows: int, size: tuple[int, int]) -> Tensor:
        return torch.randn((rows, 4, *size), generator=generator)

    encoding = torch.cat([draw(1, picture) for _ in range(lanes)][::-1])
    initial = draw(1, views)
    pairs = [(draw(lanes, picture), draw(1, views)) for _ in range(steps)]
    reference, step = (torch.stack(part) for part in zip(*pairs, strict=True))
    return Noise(encoding, initial, reference, step)


def sample_views(
    denoiser: Denoiser,
    schedule: Schedule,
    noise: Noise,
    guidance_scale: float,
    on_step: Callable[[int, Tensor], None] = lambda step, latents: None,
) -> Tensor:
    """Noise -> latents (1, 4, h, w). on_step is told the latents that a step gave."""
    latents = noise.initial * schedule.initial_sigma
    for step in range(len(schedule)):
        lanes = denoiser(step, schedule.scale(latents, step)).float()
        velocity = guide(lanes, guidance_scale)
        latents = ancestral_step(schedule, step, latents, velocity, noise.step[step])
        on_step(step, latents)
    return latents


def guide(lanes: Tensor, scale: float) -> Tensor:
    """v of every lane (G, ...) -> (1, ...): without guidance there is one lane."""
    if len(lanes) == 1:
        return lanes
    free, conditional = lanes.chunk(2)
    return free + scale * (conditional - free)


def ancestral_step(
    schedule: Schedule, step: int, latents: Tensor, velocity: Tensor, noise: Tensor
) -> Tensor:
    """One step down the noise levels; the last ends at 0, where its noise counts for nothing."""
    sigma, following = schedule.sigmas[step], schedule.sigmas[step + 1]
    clean = velocity * (-sigma / (sigma**2 + 1) ** 0.5) + latents / (sigma**2 + 1)
    added = (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5
    target = (following**2 - added**2) ** 0.5
    return latents + (latents - clean) / sigma * (target - sigma) + noise * added
