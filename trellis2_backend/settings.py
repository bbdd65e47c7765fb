"""What pipeline.json says besides the networks: samplers, normalisations, the type of pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from onelook.errors import WeightsError
from onelook.weights.layouts import PIPELINE_FILE, Pipeline
from trellis2_backend.sampler import SamplerParams

NAME = "Trellis2ImageTo3DPipeline"
SAMPLER = "FlowEulerGuidanceIntervalSampler"

# Role in pipeline.json -> name here.
ROLES = {
    "sparse_structure_flow_model": "structure_flow",
    "sparse_structure_decoder": "structure_decoder",
    "shape_slat_flow_model_512": "shape_flow_512",
    "shape_slat_flow_model_1024": "shape_flow_1024",
    "shape_slat_decoder": "shape_decoder",
    "tex_slat_flow_model_512": "texture_flow_512",
    "tex_slat_flow_model_1024": "texture_flow_1024",
    "tex_slat_decoder": "texture_decoder",
}
ENCODER_ROLE, ENCODER = "shape_slat_encoder", "shape_encoder"  # only for texturing a mesh

VOXELS_PER_TOKEN = 16  # along each axis: a latent's grid has a sixteenth of the resolution
DECODED = 512  # resolution of what the first flow of a cascade makes


@dataclass(frozen=True)
class PipelineType:
    """Which networks run, in which order.

    structure: resolution of the occupied grid. flows: of the shape, one, or two for a cascade;
    the last one's name also says that of the texture. resolution: of the surface, at most.
    """

    structure: int
    flows: tuple[str, ...]
    resolution: int


TYPES = {
    "512": PipelineType(32, ("512",), 512),
    "1024": PipelineType(64, ("1024",), 1024),
    "1024_cascade": PipelineType(32, ("512", "1024"), 1024),
    "1536_cascade": PipelineType(32, ("512", "1024"), 1536),
}


@dataclass(frozen=True)
class Normalization:
    """Per channel the latent's mean and standard deviation; a flow's latent has 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def undo(self, latent: Tensor) -> Tensor:
        """As a flow gives it (N, C) -> as decoders expect it."""
        return latent * latent.new_tensor(self.std) + latent.new_tensor(self.mean)

    def apply(self, latent: Tensor) -> Tensor:
        return (latent - latent.new_tensor(self.mean)) / latent.new_tensor(self.std)


@dataclass(frozen=True)
class Settings:
    """The samplers' numbers, the latents' normalisations, and the type of pipeline by default."""

    structure: SamplerParams
    shape: SamplerParams
    texture: SamplerParams
    shape_norm: Normalization
    texture_norm: Normalization
    pipeline_type: str


def read_settings(pipeline: Pipeline) -> Settings:
    """Raises WeightsError when something is missing or of another system."""
    if pipeline.name != NAME:
        raise WeightsError(f"{PIPELINE_FILE} is of {pipeline.name}; known here is {NAME}")
    if missing := [role for role in ROLES if role not in pipeline.models]:
        raise WeightsError(f"{PIPELINE_FILE} names no {', '.join(missing)}")
    args = pipeline.args
    try:
        settings = Settings(
            _read_sampler(args["sparse_structure_sampler"]),
            _read_sampler(args["shape_slat_sampler"]),
            _read_sampler(args["tex_slat_sampler"]),
            _read_norm(args["shape_slat_normalization"]),
            _read_norm(args["tex_slat_normalization"]),
            args.get("default_pipeline_type", "1024_cascade"),
        )
        if settings.pipeline_type not in TYPES:
            raise ValueError(f"default_pipeline_type is {settings.pipeline_type!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{PIPELINE_FILE} must hold the samplers and the latents' normalisations"
            f" ({type(error).__name__}: {error}); is it of another version?"
        ) from error
    return settings


def require_match(settings: Settings, networks: Mapping[str, nn.Module], width: int) -> None:
    """Raise WeightsError unless each network takes what the one before gives.

    width: of the condition's tokens.
    """
    configs = {name: network.config for name, network in networks.items()}
    shape, texture = len(settings.shape_norm.mean), len(settings.texture_norm.mean)
    wanted = [
        ("shape_slat_normalization", len(settings.shape_norm.std), "its mean", shape),
        ("tex_slat_normalization", len(settings.texture_norm.std), "its mean", texture),
    ]
    for name, one in configs.items():
        if "flow" in name:
            wanted.append(("the condition", width, name, one.cond_channels))
        if name.startswith("shape_flow"):
            wanted.append((name, one.in_channels, "shape_slat_normalization", shape))
            wanted.append((name, one.out_channels, "shape_slat_normalization", shape))
        if name.startswith("texture_flow"):
            wanted.append((name, one.out_channels, "tex_slat_normalization", texture))
            wanted.append(("both latents", shape + texture, name, one.in_channels))
        if name in ("shape_decoder", ENCODER):
            wanted.append(("shape_slat_normalization", shape, name, one.latent_channels))
        if name == "texture_decoder":
            wanted.append(("tex_slat_normalization", texture, name, one.latent_channels))
            wanted.append(("a material", 6, name, one.out_channels))
        if name in ("shape_decoder", "texture_decoder", ENCODER):
            wanted.append((name, 2**one.doublings, "every token", VOXELS_PER_TOKEN))
    if {"structure_flow", "structure_decoder"} <= configs.keys():
        flow, decoder = configs["structure_flow"], configs["structure_decoder"]
        finest = flow.resolution << (len(decoder.channels) - 1)
        wanted.append(
            ("structure_flow", flow.out_channels, "structure_decoder", decoder.latent_channels)
        )
        largest = max(one.structure for one in TYPES.values())
        wanted.append(("structure_decoder", finest, "the pipeline", largest))
    for giver, gives, taker, takes in wanted:
        if gives != takes:
            raise WeightsError(
                f"{PIPELINE_FILE} joins networks that do not fit: {giver} gives {gives}, {taker}"
                f" takes {takes}; are files of two checkpoints mixed?"
            )


def _read_sampler(sampler: dict[str, Any]) -> SamplerParams:
    if sampler["name"] != SAMPLER:
        raise ValueError(f"the sampler must be {SAMPLER}, got {sampler['name']}")
    return SamplerParams(**sampler["params"], **sampler.get("args", {}))


def _read_norm(numbers: dict[str, Any]) -> Normalization:
    return Normalization(*(tuple(float(v) for v in numbers[name]) for name in ("mean", "std")))
