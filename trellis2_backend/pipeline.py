"""TRELLIS.2 from end to end: condition -> structure -> shape latent -> texture latent -> decoders.

    pipeline = Trellis2Pipeline.open(checkpoint_folder, dino_folder)
    (sample,) = pipeline.run(cutout, Order(seed=1, pipeline_type="1024_cascade"))

Object space is TRELLIS's own: [-0.5, 0.5]^3, z up.

R resolution, N voxels, T tokens: voxels of a latent, of which each is 16^3 cells; C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor, nn

from onelook.errors import OptionError, SurfaceError
from onelook.nn.structure_vae import coarsened
from onelook.nn.subdivision import Subdivision
from onelook.nn.voxels import SparseTensor, Voxels
from onelook.report import Report
from onelook.residency.device import Device
from onelook.residency.plan import Stage
from onelook.weights.layouts import read_pipeline
from trellis2_backend.conditioning import PictureEncoder, open_dino
from trellis2_backend.dual_grid import DualGridMesh, dual_grid_to_mesh
from trellis2_backend.networks import open_network
from trellis2_backend.request import WORKING_BYTES, Encoder, Request, open_residency
from trellis2_backend.sampler import SamplerParams, spread_of_grids, structure_velocities
from trellis2_backend.settings import (
    DECODED,
    ROLES,
    TYPES,
    VOXELS_PER_TOKEN,
    PipelineType,
    Settings,
    read_settings,
    require_match,
)

MOST_TOKENS = 49_152  # from here on a cascade settles for less resolution
STEP_DOWN, LEAST = 128, 1024  # of the resolution: each time by so much, down to this
# Twice what a cascade tries for; beyond, attention alone would take minutes.
IMPOSSIBLE_TOKENS = 98_304
DECODING = ("decode_shape", "decode_texture")


@dataclass(frozen=True)
class Order:
    """What a request asks for.

    pipeline_type: of `settings.TYPES`, None for pipeline.json's. structure, shape, texture: the
    samplers' numbers, None for pipeline.json's. most_tokens: a cascade takes less resolution until
    it has fewer.
    """

    seed: int = 42
    pipeline_type: str | None = None
    structure: SamplerParams | None = None
    shape: SamplerParams | None = None
    texture: SamplerParams | None = None
    num_samples: int = 1
    most_tokens: int = MOST_TOKENS


@dataclass(frozen=True)
class Latents:
    """What is sampled, of all objects. structure (B, C, r, r, r); shape: tokens and their latent as
    decoders expect it, (T, C); texture (T, C), too; resolution: of the surface they stand for."""

    structure: Tensor
    shape: SparseTensor
    texture: Tensor
    resolution: int


@dataclass(frozen=True)
class Sample:
    """One object. coords (N, 3) int32, attributes (N, 6) float32: base colour (sRGB-encoded),
    metallic, roughness, alpha, about 0..1; mesh: a vertex per voxel. tokens: of its latents."""

    mesh: DualGridMesh
    coords: Tensor
    attributes: Tensor
    resolution: int
    tokens: int


class Trellis2Pipeline:
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
        self.residency = open_residency(self.networks, encoder, _STAGES, device, vram, host_type)

    @staticmethod
    def open(
        folder: Path, encoder: Path, device: str = "auto", vram: str | float = "auto"
    ) -> Trellis2Pipeline:
        """Open a checkpoint in the official layout, mapped, nothing copied.

        folder: with pipeline.json. encoder: DINOv3 (see `open_dino`).
        Raises WeightsError when a file is missing, damaged or of another checkpoint.
        """
        pipeline = read_pipeline(folder)
        settings = read_settings(pipeline)
        networks = {name: open_network(pipeline.stem(role), name) for role, name in ROLES.items()}
        return Trellis2Pipeline(
            networks, PictureEncoder(open_dino(encoder)), settings, device, vram
        )

    def run(
        self, picture: Image.Image, order: Order | None = None, report: Report | None = None
    ) -> list[Sample]:
        """A picture -> as many objects as ordered.

        picture: a cut-out (RGBA), which is framed as the networks expect it, or one that is (RGB).
        Raises OptionError for an order that cannot be met, ForegroundError for an empty cut-out,
        GenerationError when a stage gives nothing usable.
        """
        run = self._begin(order or Order(), report or Report())

        @torch.inference_mode()
        def work() -> list[Sample]:
            return run.decode(run.sample(picture))

        return self.residency.run(work, [*run.stages, *DECODING], run.report.note)

    def sample(
        self, picture: Image.Image, order: Order | None = None, report: Report | None = None
    ) -> Latents:
        """`run` up to the latents."""
        run = self._begin(order or Order(), report or Report())
        work = torch.inference_mode()(lambda: run.sample(picture))
        return self.residency.run(work, run.stages, run.report.note)

    def _begin(self, order: Order, report: Report) -> _Run:
        settings = self.settings
        name = order.pipeline_type or settings.pipeline_type
        if name not in TYPES:
            raise OptionError(f"pipeline_type must be one of {', '.join(TYPES)}, got {name!r}")
        if order.num_samples < 1:
            raise OptionError(f"there must be at least one sample, got {order.num_samples}")
        return _Run(
            self.networks,
            self.encoder,
            self.residency,
            order.seed,
            report,
            settings=settings,
            type=TYPES[name],
            structure=order.structure or settings.structure,
            shape=order.shape or settings.shape,
            texture=order.texture or settings.texture,
            num_samples=order.num_samples,
            most_tokens=order.most_tokens,
        )


_STAGES = [
    Stage("condition", ("encoder",)),
    Stage("structure", ("structure_flow", "structure_decoder"), WORKING_BYTES["512"]),
    Stage("shape_512", ("shape_flow_512",), WORKING_BYTES["512"]),
    Stage("upsample", ("shape_decoder",), WORKING_BYTES["512"]),
    Stage("shape_1024", ("shape_flow_1024",), WORKING_BYTES["1024"]),
    Stage("texture_512", ("texture_flow_512",), WORKING_BYTES["512"]),
    Stage("texture_1024", ("texture_flow_1024",), WORKING_BYTES["1024"]),
    Stage("decode_shape", ("shape_decoder",), WORKING_BYTES["decode"]),
    Stage("decode_texture", ("texture_decoder",), WORKING_BYTES["decode"]),
]


@dataclass(frozen=True, kw_only=True)
class _Run(Request):
    """The stages, in order."""

    settings: Settings
    type: PipelineType
    structure: SamplerParams
    shape: SamplerParams
    texture: SamplerParams
    num_samples: int
    most_tokens: int

    @property
    def stages(self) -> list[str]:
        """Of the residency, those of sampling, in order."""
        shape = [f"shape_{flow}" for flow in self.type.flows]
        between = ["upsample"] * (len(shape) - 1)
        texture = f"texture_{self.type.flows[-1]}"
        return ["condition", "structure", shape[0], *between, *shape[1:], texture]

    def sample(self, picture: Image.Image) -> Latents:
        """All that is random. One generator, on the CPU, so that a seed means the same anywhere."""
        generator = Generator().manual_seed(self.seed)
        sides = sorted({DECODED, *map(int, self.type.flows)})
        conditions = self.condition(picture, sides)
        structure, voxels = self.sample_structure(conditions[DECODED], generator)
        shape, resolution = self.sample_shape(conditions, voxels, generator)
        texture = self.sample_texture(conditions, shape, generator)
        return Latents(structure, shape, texture, resolution)

    def sample_structure(self, tokens: Tensor, generator: Generator) -> tuple[Tensor, Voxels]:
        """Condition -> latent of the structure, and the tokens' places."""
        networks, stage = self.networks, "structure"
        flow = networks["structure_flow"].config
        shape = (self.num_samples, flow.in_channels, *3 * (flow.resolution,))
        velocities = structure_velocities(networks["structure_flow"])
        with self.report.step(stage), self.residency.stage(stage):
            noise = self.noise(shape, generator)
            latent = self.follow(velocities, noise, tokens, self.structure, spread_of_grids)
            logits = networks["structure_decoder"](latent)
            self.require_finite(logits, stage)
            coords = coarsened(logits > 0, self.type.structure)
        return latent, self._tokens(coords, stage)

    def sample_shape(
        self, conditions: Mapping[int, Tensor], voxels: Voxels, generator: Generator
    ) -> tuple[SparseTensor, int]:
        """Places -> the shape's latent there, or, in a cascade, on finer ones; its resolution."""
        first, *finer = self.type.flows
        shape = self._shape_latent(first, conditions, voxels, generator, "shape")
        resolution = self.type.resolution
        for flow in finer:
            voxels, resolution = self._finer_places(shape)
            shape = self._shape_latent(flow, conditions, voxels, generator, "finer_shape")
        return shape, resolution

    def sample_texture(
        self, conditions: Mapping[int, Tensor], shape: SparseTensor, generator: Generator
    ) -> Tensor:
        """The shape's latent -> the texture's, (T, C), as its decoder expects it."""
        name, settings = self.type.flows[-1], self.settings
        beside = settings.shape_norm.apply(shape.feats)
        latent = self.latent(
            f"texture_{name}", conditions[int(name)], shape.voxels, self.texture, generator, beside
        )
        return settings.texture_norm.undo(latent)

    def decode(self, latents: Latents) -> list[Sample]:
        """Latents -> the objects."""
        out, found = self._decode_shape(latents)
        attributes = self._decode_texture(latents, found)
        decoder = self.networks["shape_decoder"]
        grids = decoder.dual_grids(out, latents.resolution)
        lengths = latents.shape.voxels.lengths
        with self.report.step("mesh"):
            try:
                meshes = [dual_grid_to_mesh(grid) for grid in grids]
            except SurfaceError as error:
                self.fail("decode_shape", str(error), error)
        parts = zip(meshes, grids, attributes, lengths, strict=True)
        return [
            Sample(mesh, grid.coords, rows, latents.resolution, tokens)
            for mesh, grid, rows, tokens in parts
        ]

    def _decode_shape(self, latents: Latents) -> tuple[SparseTensor, list[Subdivision]]:
        decoder, stage = self.networks["shape_decoder"], "decode_shape"
        with self.report.step(stage), self.residency.stage(stage):
            try:
                decoded = decoder.decode(latents.shape)
            except SurfaceError as error:
                self.fail(stage, str(error), error)
            self.require_finite(decoded.x.feats, stage)
        return decoded.x, decoded.subdivisions

    def _decode_texture(self, latents: Latents, found: list[Subdivision]) -> list[Tensor]:
        decoder, stage = self.networks["texture_decoder"], "decode_texture"
        with self.report.step(stage), self.residency.stage(stage):
            out = decoder(latents.shape.with_feats(latents.texture), found)
            self.require_finite(out.feats, stage)
        return list((out.feats * 0.5 + 0.5).split(out.voxels.lengths))

    def _shape_latent(
        self,
        flow: str,
        conditions: Mapping[int, Tensor],
        voxels: Voxels,
        generator: Generator,
        step: str,
    ) -> SparseTensor:
        tokens = conditions[int(flow)]
        latent = self.latent(f"shape_{flow}", tokens, voxels, self.shape, generator, step=step)
        return SparseTensor(self.settings.shape_norm.undo(latent), voxels)

    def _finer_places(self, shape: SparseTensor) -> tuple[Voxels, int]:
        """Where the decoder sees the shape: its places at the wanted resolution, or the next that
        has few enough of them; and that resolution."""
        decoder, stage = self.networks["shape_decoder"], "upsample"
        with self.report.step(stage), self.residency.stage(stage):
            try:
                seen = decoder.upsample(shape, decoder.config.doublings).coords
            except SurfaceError as error:
                self.fail(stage, str(error), error)
        resolution = self.type.resolution
        coords = quantised(seen, resolution)
        while resolution > LEAST and len(coords) >= self.most_tokens:
            resolution -= STEP_DOWN
            coords = quantised(seen, resolution)
        if resolution < self.type.resolution:
            self.report.note(
                f"the object is too large for {self.type.resolution} voxels to a side and"
                f" {self.most_tokens} tokens: it is made with {resolution}"
            )
        return self._tokens(coords, stage), resolution

    def _tokens(self, coords: Tensor, stage: str) -> Voxels:
        lengths = torch.bincount(coords[:, 0], minlength=self.num_samples).tolist()
        if min(lengths) == 0:
            self.fail(stage, "no voxel is occupied")
        if max(lengths) > IMPOSSIBLE_TOKENS:
            self.fail(stage, f"{max(lengths)} voxels are occupied, {IMPOSSIBLE_TOKENS} may be")
        return Voxels(coords, lengths)


def quantised(coords: Tensor, resolution: int) -> Tensor:
    """coords (N, 4) int32 of voxels on the grid that the first flow of a cascade decodes to ->
    (T, 4) int32, ascending: the tokens of `resolution` that hold any."""
    cells = (coords[:, 1:].float() + 0.5) / DECODED * (resolution // VOXELS_PER_TOKEN)
    return torch.unique(torch.cat([coords[:, :1], cells.int()], dim=1), dim=0)
