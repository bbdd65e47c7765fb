"""What pipeline.json says besides the networks: samplers and the latent's normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from onelook.errors import WeightsError
from onelook.weights.layouts import PIPELINE_FILE, Pipeline
from trellis_backend.sampler import SamplerParams

IMAGE, TEXT = "TrellisImageTo3DPipeline", "TrellisTextTo3DPipeline"
SAMPLER = "FlowEulerGuidanceIntervalSampler"

# Role in pipeline.json -> name here. The decoders are optional: one that is not listed is not run.
ROLES = {
    "sparse_structure_flow_model": "structure_flow",
    "sparse_structure_decoder": "structure_decoder",
    "slat_flow_model": "latent_flow",
    "slat_decoder_mesh": "mesh",
    "slat_decoder_gs": "gaussian",
    "slat_decoder_rf": "radiance_field",
}
NEEDED = ("sparse_structure_flow_model", "sparse_structure_decoder", "slat_flow_model")


@dataclass(frozen=True)
class Settings:
    """The samplers' numbers, and per channel the latent's mean and standard deviation."""

    structure: SamplerParams
    latent: SamplerParams
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_settings(pipeline: Pipeline) -> Settings:
    """Raises WeightsError when something is missing or of another system."""
    if pipeline.name not in (IMAGE, TEXT):
        raise WeightsError(
            f"{PIPELINE_FILE} is of {pipeline.name}; known here are {IMAGE} and {TEXT}"
        )
    if missing := [role for role in NEEDED if role not in pipeline.models]:
        raise WeightsError(f"{PIPELINE_FILE} names no {', '.join(missing)}")
    try:
        normalization = pipeline.args["slat_normalization"]
        return Settings(
            _read_sampler(pipeline.args["sparse_structure_sampler"]),
            _read_sampler(pipeline.args["slat_sampler"]),
            tuple(float(value) for value in normalization["mean"]),
            tuple(float(value) for value in normalization["std"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{PIPELINE_FILE} must hold the samplers and the latent's normalisation"
            f" ({type(error).__name__}: {error}); is it of another version?"
        ) from error


def require_match(settings: Settings, networks: dict[str, nn.Module], width: int) -> None:
    """Raise WeightsError unless each network takes what the one before gives.

    width: of the condition's tokens.
    """
    configs = {name: network.config for name, network in networks.items()}
    structure, latent = configs["structure_flow"], configs["latent_flow"]
    decoder = configs["structure_decoder"]
    doublings = len(decoder.channels) - 1
    wanted = [
        ("the condition", width, "structure_flow", structure.cond_channels),
        ("the condition", width, "latent_flow", latent.cond_channels),
        ("structure_flow", structure.out_channels, "structure_decoder", decoder.latent_channels),
        ("structure_decoder", structure.resolution << doublings, "latent_flow", latent.resolution),
        ("slat_normalization", len(settings.mean), "latent_flow", latent.out_channels),
        ("slat_normalization", len(settings.std), "latent_flow", latent.out_channels),
    ]
    for name in sorted(configs.keys() - {"structure_flow", "structure_decoder", "latent_flow"}):
        one = configs[name]
        wanted.append(("latent_flow", latent.out_channels, name, one.latent_channels))
        wanted.append(("latent_flow", latent.resolution, name, one.resolution))
    for giver, gives, taker, takes in wanted:
        if gives != takes:
            raise WeightsError(
                f"{PIPELINE_FILE} joins networks that do not fit: {giver} gives {gives}, {taker}"
                f" takes {takes}; are files of two checkpoints mixed?"
            )


def _read_sampler(sampler: dict[str, Any]) -> SamplerParams:
    if sampler["name"] != SAMPLER:
        raise ValueError(f"the sampler must be {SAMPLER}, got {sampler['name']}")
    return SamplerParams(**sampler["params"])
