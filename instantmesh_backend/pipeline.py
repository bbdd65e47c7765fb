"""InstantMesh from end to end: picture -> six views -> triplanes -> mesh.

    pipeline = InstantMeshPipeline.open(zero123_folder, unet_file, checkpoint)
    sample = pipeline.run(picture, seed=1)

Object space is InstantMesh's own: [-1, 1]^3, z up, the side the picture shows faces +x.

S side of a view in pixels, C channels of a plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instantmesh_backend.cameras import view_cameras
from instantmesh_backend.config import RECONSTRUCTION, ReconstructionConfig
from instantmesh_backend.extract_mesh import ExtractedMesh, extract_mesh
from instantmesh_backend.opening import open_zero123plus
from instantmesh_backend.preparation import on_white, require_subject, split_views
from instantmesh_backend.reconstruction import BLOCKS, Reconstruction, open_reconstruction
from instantmesh_backend.sampler import sample_views
from instantmesh_backend.zero123plus import UNET_BLOCKS, VISION_BLOCKS, Zero123Plus
from onelook.errors import GenerationError, OptionError, SurfaceError
from onelook.report import Report
from onelook.residency.device import Device, open_device
from onelook.residency.manager import Residency
from onelook.residency.networks import TO_FLOAT32, Network
from onelook.residency.plan import Stage

Array = np.ndarray

VARIANT, STEPS, GUIDANCE_SCALE, SEED = "instant-mesh-large", 75, 4.0, 42  # the original's
STEP_SHARES = {  # of the time on a GPU, beside those of an asset; only for progress
    "condition": 2,
    "views": 60,
    "decode_views": 1,
    "reconstruct": 3,
    "extract": 3,
}
# What a stage computes with besides weights, as a test works out for the large model: the picture's
# encoding at 512 x 512; four references in one batch, and what they leave for the steps that read
# it; the decoding of 640 x 960 pixels, all in float16; the field at 2^20 points in float32, which
# takes more than the views' tokens do.
WORKING_BYTES = {
    "condition": 360_000_000,
    "views": 1_000_000_000,
    "decode_views": 1_000_000_000,
    "reconstruct": 1_000_000_000,
}
STAGES = (
    Stage("condition", ("vision", "vae"), WORKING_BYTES["condition"]),
    Stage("views", ("unet",), WORKING_BYTES["views"]),
    Stage("decode_views", ("vae",), WORKING_BYTES["decode_views"]),
    Stage("reconstruct", ("reconstruction",), WORKING_BYTES["reconstruct"]),
)
TO_FLOAT16 = {torch.float32: torch.float16, torch.bfloat16: torch.float16}


@dataclass(frozen=True)
class Sample:
    """One object. views (3 S, 2 S, 3) uint8 on white, three rows of two; planes (1, 3, C, ...)
    float32; mesh in object space. Tensors are on the pipeline's device."""

    views: Array
    planes: Tensor
    mesh: ExtractedMesh


class InstantMeshPipeline:
    """Holds the networks and nothing of a request. For one thread at a time."""

    def __init__(
        self,
        zero123plus: Zero123Plus,
        reconstruction: Reconstruction,
        device: str | Device = "auto",
        vram: str | float = "auto",
        in_halves: bool | None = None,
    ):
        """in_halves: whether views are painted in float16; the default is the original's: on a GPU.
        The reconstruction computes in float32 everywhere."""
        self.zero123plus = zero123plus
        self.reconstruction = reconstruction
        place = open_device(device) if isinstance(device, str) else device
        self.device = place.torch_device
        if in_halves is None:
            in_halves = self.device.type == "cuda"
        painting = TO_FLOAT16 if in_halves else TO_FLOAT32
        self.residency = Residency(
            {
                "vision": Network(zero123plus.vision, painting, VISION_BLOCKS),
                "vae": Network(zero123plus.vae, painting),
                "unet": Network(zero123plus.unet, painting, UNET_BLOCKS),
                "reconstruction": Network(reconstruction, TO_FLOAT32, BLOCKS),
            },
            STAGES,
            place,
            vram,
        )

    @staticmethod
    def open(
        zero123plus: Path,
        unet: Path,
        checkpoint: Path,
        config: ReconstructionConfig = RECONSTRUCTION[VARIANT],
        device: str = "auto",
        vram: str | float = "auto",
    ) -> InstantMeshPipeline:
        """Open the official files, mapped, nothing copied.

        zero123plus: the folder of sudo-ai/zero123plus-v1.2; unet: the file of InstantMesh's UNet;
        checkpoint: the reconstruction model that `config` describes.
        Raises WeightsError when a file is missing, damaged or of another checkpoint.
        """
        reconstruction = open_reconstruction(checkpoint, config)
        return InstantMeshPipeline(
            open_zero123plus(zero123plus, unet), reconstruction, device, vram
        )

    def run(
        self,
        picture: Image.Image,
        seed: int = SEED,
        steps: int = STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        report: Report | None = None,
    ) -> Sample:
        """A picture of one object -> the object.

        picture: a cut-out (RGBA), the subject in the middle and filling most of it, or the same on
        white (RGB); of another aspect than a square's its middle is used. guidance_scale: of the
        views; 1 and less is none.
        Raises PictureError for a picture that is too small or of another mode, ForegroundError for
        one without a subject, GenerationError when a stage gives nothing usable.
        """
        if steps < 1:
            raise OptionError(f"steps must be at least 1, got {steps}")
        require_subject(picture)
        run = _Run(self, on_white(picture), seed, steps, guidance_scale, report or Report())
        return self.residency.run(run.work, note=run.report.note)


@dataclass(frozen=True)
class _Run:
    """One request: the stages with what it asked for."""

    pipeline: InstantMeshPipeline
    picture: Image.Image
    seed: int
    steps: int
    guidance_scale: float
    report: Report

    @torch.inference_mode()
    def work(self) -> Sample:
        views = self._paint()
        with self.pipeline.residency.stage("reconstruct"):
            with self.report.step("reconstruct"):
                planes = self._planes(views)
            with self.report.step("extract"):
                mesh = self._extract(planes)
        return Sample(views, planes, mesh)

    def _paint(self) -> Array:
        """The picture -> six views."""
        zero123plus, residency = self.pipeline.zero123plus, self.pipeline.residency
        noise = zero123plus.draw_noise(self.seed, self.steps, self.guidance_scale)
        noise = noise.to(self.pipeline.device)
        with self.report.step("condition"), residency.stage("condition"):
            condition = zero123plus.condition(self.picture, noise)
        schedule = zero123plus.schedule(self.steps)
        with self.report.step("views"), residency.stage("views"):
            denoiser = zero123plus.denoiser(condition, schedule, noise)
            latents = sample_views(denoiser, schedule, noise, self.guidance_scale, self._on_step)
            self._require_finite(latents, "views")
        with self.report.step("decode_views"), residency.stage("decode_views"):
            return zero123plus.decode(latents)

    def _planes(self, views: Array) -> Tensor:
        images = torch.from_numpy(split_views(views))[None].to(self.pipeline.device)
        cameras = view_cameras().to(self.pipeline.device)
        return self.pipeline.reconstruction.forward_planes(images, cameras)

    def _extract(self, planes: Tensor) -> ExtractedMesh:
        try:
            return extract_mesh(self.pipeline.reconstruction, planes)
        except SurfaceError as error:
            self._fail("extract", str(error), error)

    def _on_step(self, step: int, _latents: Tensor) -> None:
        self.report.advance((step + 1) / self.steps)

    def _require_finite(self, values: Tensor, stage: str) -> None:
        if not bool(values.isfinite().all()):
            self._fail(stage, "the network gave numbers that are not finite")

    def _fail(self, stage: str, what: str, cause: Exception | None = None) -> NoReturn:
        raise GenerationError(
            f"stage {stage} with seed {self.seed}: {what}; try another seed or another picture"
        ) from cause
