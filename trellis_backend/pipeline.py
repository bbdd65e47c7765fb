"""TRELLIS from end to end: condition -> sparse structure -> structured latent -> decoders.

    pipeline = TrellisPipeline.open(checkpoint_folder, dino_path)
    (sample,) = pipeline.run([cutout], seed=1, formats=["mesh", "gaussian"])

Object space is TRELLIS's own: [-0.5, 0.5]^3, z up.

n subjects (pictures of one object, or prompts), R resolution, N voxels, L tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from PIL import Image
from torch import Generator, Tensor, nn

from onelook.errors import GenerationError, OptionError, SurfaceError
from onelook.nn.condition import Condition
from onelook.nn.flow import Velocity, flow_times, sample_flow
from onelook.nn.structure_vae import occupied
from onelook.nn.voxels import SparseTensor, Voxels
from onelook.report import Report
from onelook.residency.device import Device, open_device
from onelook.residency.manager import Residency
from onelook.residency.networks import Network
from onelook.residency.plan import Stage
from onelook.weights.layouts import read_pipeline
from onelook.weights.opening import open_pair
from trellis_backend.conditioning import PictureEncoder, open_dino
from trellis_backend.extract_mesh import ExtractedMesh, extract_mesh
from trellis_backend.gaussians import Gaussians
from trellis_backend.networks import NETWORKS
from trellis_backend.radiance_decoder import RadianceField
from trellis_backend.sampler import (
    MULTI_IMAGE_MODES,
    SamplerParams,
    guided_velocity,
    latent_velocities,
    structure_velocities,
    take_turns,
)
from trellis_backend.settings import ROLES, TEXT, Settings, read_settings, require_match
from trellis_backend.text_conditioning import open_clip

FORMATS = ("mesh", "gaussian", "radiance_field")
# Twice what a training example ever had (32,768); beyond, attention alone would take minutes.
MOST_VOXELS = 65_536


class Encoder(Protocol):
    """What makes the condition: of which kind of subject, its network, which of its blocks may be
    streamed, the tokens' width."""

    subject: type
    subject_name: str
    network: nn.Module
    blocks: tuple[str, ...]
    width: int

    def encode(self, subjects: Sequence[Any], device: torch.device) -> Tensor:
        """n subjects -> (n, L, C)."""
        ...

    def unconditional(self, tokens: Tensor) -> Condition:
        """The condition that guidance leads away from, for conditions like `tokens`."""
        ...


@dataclass(frozen=True)
class Sample:
    """One object. coords (N, 3) int32 and latent (N, C) float32 as decoders expect it; of the
    formats, those that were asked for."""

    coords: Tensor
    latent: Tensor
    mesh: ExtractedMesh | None = None
    gaussians: Gaussians | None = None
    radiance_field: RadianceField | None = None


class TrellisPipeline:
    """Holds the networks and nothing of a request. For one thread at a time."""

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        encoder: Encoder,
        settings: Settings,
        device: str | Device = "auto",
        vram: str | float = "auto",
        host_type: torch.dtype = torch.float32,
    ):
        """networks: by the names in `settings.ROLES`. host_type: what a CPU computes stored halves
        in; bfloat16 is faster on some and less exact.

        Raises WeightsError when the networks do not fit together.
        """
        self.networks = dict(networks)
        require_match(settings, self.networks, encoder.width)
        self.encoder = encoder
        self.settings = settings
        self.formats = tuple(name for name in FORMATS if name in self.networks)
        place = open_device(device) if isinstance(device, str) else device
        self.device = place.torch_device
        cast = {torch.float16: host_type, torch.bfloat16: host_type} if place.is_host else {}
        movable = {"encoder": Network(encoder.network, cast, encoder.blocks)}
        for name, network in self.networks.items():
            movable[name] = Network(network, cast, ("blocks",))
        self.residency = Residency(
            movable,
            [
                Stage("condition", ("encoder",)),
                Stage("structure", ("structure_flow", "structure_decoder")),
                Stage("latent", ("latent_flow",)),
                *(Stage(f"decode_{name}", (name,)) for name in self.formats),
            ],
            place,
            vram,
        )

    @staticmethod
    def open(
        folder: Path, encoder: Path, device: str = "auto", vram: str | float = "auto"
    ) -> TrellisPipeline:
        """Open a checkpoint in the official layout, mapped, nothing copied.

        folder: with pipeline.json. encoder: DINOv2 (see `open_dino`), for the text models CLIP
        (see `open_clip`).
        Raises WeightsError when a file is missing, damaged or of another checkpoint.
        """
        pipeline = read_pipeline(folder)
        settings = read_settings(pipeline)
        networks = {
            name: open_pair(pipeline.stem(role), NETWORKS)
            for role, name in ROLES.items()
            if role in pipeline.models
        }
        is_text = pipeline.name == TEXT
        opened = open_clip(encoder) if is_text else PictureEncoder(open_dino(encoder))
        return TrellisPipeline(networks, opened, settings, device, vram)

    def run(
        self,
        subjects: Sequence[Image.Image] | Sequence[str],
        seed: int = 42,
        formats: Sequence[str] | None = None,
        structure: SamplerParams | None = None,
        latent: SamplerParams | None = None,
        multi_image_mode: str = "stochastic",
        num_samples: int = 1,
        report: Report | None = None,
    ) -> list[Sample]:
        """Pictures of one object, or a text -> `num_samples` objects.

        subjects: cut-outs (RGBA), which are framed as the networks expect it, or pictures that are
        (RGB); for the text models prompts, normally one. formats: of `self.formats`, default all.
        structure, latent: samplers' numbers, default pipeline.json's.
        Raises OptionError for an unknown format or mode, for no subject or one of the wrong kind,
        ForegroundError for an empty cut-out, GenerationError when a stage gives nothing usable.
        """
        formats = self.formats if formats is None else tuple(formats)
        if unknown := [name for name in formats if name not in self.formats]:
            raise OptionError(f"formats may be {', '.join(self.formats)}, got {unknown[0]!r}")
        if multi_image_mode not in MULTI_IMAGE_MODES:
            modes = ", ".join(MULTI_IMAGE_MODES)
            raise OptionError(f"multi_image_mode must be one of {modes}, got {multi_image_mode!r}")
        if not subjects or num_samples < 1:
            raise OptionError("there must be at least one subject and one sample")
        if not all(isinstance(one, self.encoder.subject) for one in subjects):
            raise OptionError(f"this checkpoint takes {self.encoder.subject_name}")
        run = _Run(self, seed, structure, latent, multi_image_mode, num_samples, report or Report())
        stages = ["condition", "structure", "latent", *(f"decode_{name}" for name in formats)]

        @torch.inference_mode()
        def work() -> list[Sample]:
            generator = Generator().manual_seed(seed)  # CPU: a seed means the same everywhere
            conditions, free = run.condition(subjects)
            voxels = run.sample_structure(conditions, free, generator)
            slat = run.sample_latent(conditions, free, voxels, generator)
            decoded = {name: run.decode(name, slat) for name in formats}
            return run.samples(slat, decoded)

        return self.residency.run(work, stages, run.report.note)


@dataclass(frozen=True)
class _Run:
    """One request: the stages with what it asked for."""

    pipeline: TrellisPipeline
    seed: int
    structure: SamplerParams | None
    latent: SamplerParams | None
    multi_image_mode: str
    num_samples: int
    report: Report

    def condition(self, subjects: Sequence[Any]) -> tuple[list[Condition], Condition]:
        """Subjects -> their conditions, and the unconditional one."""
        pipeline = self.pipeline
        with self.report.step("condition"), pipeline.residency.stage("condition"):
            tokens = pipeline.encoder.encode(subjects, pipeline.device)
            self._require_finite(tokens, "condition")
            free = pipeline.encoder.unconditional(tokens)
        return [Condition(row[None]) for row in tokens], free

    def sample_structure(
        self, conditions: list[Condition], free: Condition, generator: Generator
    ) -> Voxels:
        """Conditions -> the voxels that are occupied."""
        pipeline, networks = self.pipeline, self.pipeline.networks
        flow = networks["structure_flow"].config
        shape = (self.num_samples, flow.in_channels, *3 * (flow.resolution,))
        noise = torch.randn(shape, generator=generator).to(pipeline.device)
        params = self.structure or pipeline.settings.structure
        velocity = self._velocity(
            structure_velocities(networks["structure_flow"]), conditions, free, params
        )
        with self.report.step("structure"), pipeline.residency.stage("structure"):
            latent = self._sample(velocity, noise, params)
            logits = networks["structure_decoder"](latent)
            self._require_finite(logits, "structure")
            coords = occupied(logits)
        lengths = torch.bincount(coords[:, 0], minlength=self.num_samples).tolist()
        if min(lengths) == 0:
            self._fail("structure", "no voxel is occupied")
        if max(lengths) > MOST_VOXELS:
            self._fail("structure", f"{max(lengths)} voxels are occupied, {MOST_VOXELS} may be")
        return Voxels(coords, lengths)

    def sample_latent(
        self, conditions: list[Condition], free: Condition, voxels: Voxels, generator: Generator
    ) -> SparseTensor:
        """Voxels -> their latent, as decoders expect it."""
        pipeline, flow = self.pipeline, self.pipeline.networks["latent_flow"]
        shape = (len(voxels), flow.config.in_channels)
        noise = torch.randn(shape, generator=generator).to(pipeline.device)
        params = self.latent or pipeline.settings.latent
        velocity = self._velocity(latent_velocities(flow, voxels), conditions, free, params)
        with self.report.step("latent"), pipeline.residency.stage("latent"):
            latent = self._sample(velocity, noise, params)
            self._require_finite(latent, "latent")
        mean, std = (noise.new_tensor(v) for v in (pipeline.settings.mean, pipeline.settings.std))
        return SparseTensor(latent * std + mean, voxels)

    def decode(self, name: str, slat: SparseTensor) -> list:
        """The latent -> one representation of each sample."""
        stage, decoder = f"decode_{name}", self.pipeline.networks[name]
        with self.report.step(stage):
            with self.pipeline.residency.stage(stage):
                decoded = decoder(slat)
            if name == "mesh":
                return self._extract(decoded, decoder.resolution)
            for one in decoded:
                for values in vars(one).values():
                    self._require_finite(values, stage)
        return decoded

    def _extract(self, features: SparseTensor, resolution: int) -> list[ExtractedMesh]:
        self._require_finite(features.feats, "decode_mesh")
        try:
            return [
                extract_mesh(item.voxels.coords[:, 1:], item.feats, resolution)
                for item in features.items()
            ]
        except SurfaceError as error:
            raise GenerationError(f"stage decode_mesh with seed {self.seed}: {error}") from error

    def samples(self, slat: SparseTensor, decoded: Mapping[str, list]) -> list[Sample]:
        """What was made, sample by sample."""
        names = {"mesh": "mesh", "gaussian": "gaussians", "radiance_field": "radiance_field"}
        return [
            Sample(
                item.voxels.coords[:, 1:],
                item.feats,
                **{names[name]: parts[number] for name, parts in decoded.items()},
            )
            for number, item in enumerate(slat.items())
        ]

    def _velocity(
        self, velocities: Callable, conditions: list[Condition], free: Condition, params
    ) -> Velocity:
        if self.multi_image_mode == "stochastic" and len(conditions) > params.steps:
            self.report.note(
                f"{len(conditions)} pictures take turns in {params.steps} steps: the last"
                f" {len(conditions) - params.steps} are not used"
            )
        turns = take_turns(conditions, self.multi_image_mode)
        return guided_velocity(velocities, turns, free, params.guidance)

    def _sample(self, velocity: Velocity, noise: Tensor, params: SamplerParams) -> Tensor:
        times = flow_times(params.steps, params.rescale_t)

        def on_step(number: int, _x: Tensor) -> None:
            self.report.advance((number + 1) / params.steps)

        return sample_flow(velocity, noise, times, on_step)

    def _require_finite(self, values: Tensor, stage: str) -> None:
        if not bool(values.isfinite().all()):
            self._fail(stage, "the network gave numbers that are not finite")

    def _fail(self, stage: str, what: str) -> NoReturn:
        raise GenerationError(
            f"stage {stage} with seed {self.seed}: {what}; try another seed or another picture"
        )
