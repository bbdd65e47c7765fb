"""One request, as the stages of every pipeline see it: sample, check, and say what went wrong.

T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import torch
from PIL import Image
from torch import Generator, Tensor, nn

from onelook.errors import GenerationError
from onelook.nn.condition import Condition
from onelook.nn.flow import flow_times, sample_flow
from onelook.nn.voxels import Voxels
from onelook.report import Report
from onelook.residency.device import Device, open_device
from onelook.residency.manager import Residency
from onelook.residency.networks import Network
from onelook.residency.plan import Stage
from trellis2_backend.networks import exact_keys
from trellis2_backend.sampler import (
    SamplerParams,
    Spread,
    Velocities,
    guided_velocity,
    latent_velocities,
    spread_of_rows,
)

# What a stage computes with besides weights: flows at 49,152 tokens, those called "512" at 10,000,
# with guidance and what they keep of the condition, as a test works out; decoders by estimate.
WORKING_BYTES = {"1024": 2_700_000_000, "512": 800_000_000, "decode": 2_500_000_000}


class Encoder(Protocol):
    """What makes the condition: its network, which of its blocks may be streamed, the tokens'
    width."""

    network: nn.Module
    blocks: tuple[str, ...]
    width: int

    def encode(self, pictures: Sequence[Image.Image], side: int, device: torch.device) -> Tensor:
        """n pictures at `side` pixels -> (n, L, C)."""
        ...


@dataclass(frozen=True)
class Request:
    """What its stages compute with."""

    networks: Mapping[str, nn.Module]
    encoder: Encoder
    residency: Residency
    seed: int
    report: Report

    @property
    def device(self) -> torch.device:
        return self.residency.device.torch_device

    def condition(self, picture: Image.Image, sides: Sequence[int]) -> dict[int, Tensor]:
        """Side in pixels -> tokens (1, L, C) of the picture at that size."""
        with self.report.step("condition"), self.residency.stage("condition"):
            tokens = {side: self.encoder.encode([picture], side, self.device) for side in sides}
            for one in tokens.values():
                self.require_finite(one, "condition")
        return tokens

    def latent(
        self,
        stage: str,
        tokens: Tensor,
        voxels: Voxels,
        params: SamplerParams,
        generator: Generator,
        beside: Tensor | None = None,
        step: str | None = None,
    ) -> Tensor:
        """(T, C) as the flow of this stage gives it; step: what it is called in the report."""
        kind, _, size = stage.partition("_")
        flow = self.networks[f"{kind}_flow_{size}"]
        channels = flow.config.in_channels - (0 if beside is None else beside.shape[1])
        velocities = latent_velocities(flow, voxels, beside)
        with self.report.step(step or kind), self.residency.stage(stage):
            noise = self.noise((len(voxels), channels), generator)
            latent = self.follow(velocities, noise, tokens, params, spread_of_rows(voxels))
            self.require_finite(latent, stage)
        return latent

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.randn(shape, generator=generator).to(self.device)

    def follow(
        self,
        velocities: Velocities,
        noise: Tensor,
        tokens: Tensor,
        params: SamplerParams,
        spread: Spread,
    ) -> Tensor:
        condition, free = Condition(tokens), Condition.zero(tokens)
        velocity = guided_velocity(velocities, condition, free, params, spread)
        times = flow_times(params.steps, params.rescale_t)

        def on_step(number: int, _x: Tensor) -> None:
            self.report.advance((number + 1) / params.steps)

        return sample_flow(velocity, noise, times, on_step)

    def require_finite(self, values: Tensor, stage: str) -> None:
        if not bool(values.isfinite().all()):
            self.fail(stage, "the network gave numbers that are not finite")

    def fail(self, stage: str, what: str, cause: Exception | None = None) -> NoReturn:
        raise GenerationError(
            f"stage {stage} with seed {self.seed}: {what}; try another seed or another picture"
        ) from cause


def open_residency(
    networks: Mapping[str, nn.Module],
    encoder: Encoder,
    stages: Sequence[Stage],
    device: str | Device,
    vram: str | float,
    host_type: torch.dtype,
) -> Residency:
    """Where the networks and the encoder, called "encoder", are during each stage."""
    place = open_device(device) if isinstance(device, str) else device
    cast = {torch.float16: host_type, torch.bfloat16: host_type} if place.is_host else {}
    movable = {"encoder": Network(encoder.network, cast, encoder.blocks)}
    for name, network in networks.items():
        movable[name] = Network(network, cast, ("blocks",), frozenset(exact_keys(network)))
    return Residency(movable, stages, place, vram)
