"""TripoSR from end to end: picture -> triplane -> mesh.

    pipeline = TripoSRPipeline.open(folder)
    sample = pipeline.run(picture)

World space: [-radius, radius]^3, z up, the side the picture shows faces +x.

H rows, W columns, C channels of a plane, S texels along its side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from onelook.errors import GenerationError, SurfaceError
from onelook.report import Report
from onelook.residency.device import Device, open_device
from onelook.residency.manager import Residency
from onelook.residency.networks import TO_FLOAT32, Network
from onelook.residency.plan import Stage
from triposr_backend.extract_mesh import RESOLUTION, ExtractedMesh, extract_mesh
from triposr_backend.opening import open_triposr
from triposr_backend.preparation import network_pixels
from triposr_backend.scene_field import SceneField
from triposr_backend.scene_model import BLOCKS, TripoSR

Array = np.ndarray

STEP_SHARES = {"reconstruct": 3, "extract": 4}  # of the time on a GPU; only for progress


@dataclass(frozen=True)
class Sample:
    """One object: its planes (3, C, S, S) float32, what they hold, and its surface; all on the
    pipeline's device."""

    planes: Tensor
    field: SceneField
    mesh: ExtractedMesh


class TripoSRPipeline:
    """Holds the network and nothing of a request. For one thread at a time."""

    def __init__(self, model: TripoSR, device: str | Device = "auto", vram: str | float = "auto"):
        self.model = model
        place = open_device(device) if isinstance(device, str) else device
        self.device = place.torch_device
        self.residency = Residency(
            {"model": Network(model, TO_FLOAT32, BLOCKS)},
            [Stage("reconstruct", ("model",))],
            place,
            vram,
        )

    @staticmethod
    def open(folder: Path, device: str = "auto", vram: str | float = "auto") -> TripoSRPipeline:
        """Open a checkpoint in the official layout; raises as `open_triposr`."""
        return TripoSRPipeline(open_triposr(folder), device, vram)

    def run(
        self,
        picture: Array,
        resolution: int = RESOLUTION,
        chunk_size: int = 0,
        report: Report | None = None,
    ) -> Sample:
        """picture (H, W, 3) uint8, the object over grey and filling most of it -> the object.

        resolution: points of the grid along each axis. chunk_size: points looked up at once, 0 for
        a choice of ours; the result does not depend on it.
        Raises GenerationError when a stage gives nothing usable.
        """
        report = report or Report()

        @torch.inference_mode()
        def work() -> Sample:
            with report.step("reconstruct"), self.residency.stage("reconstruct"):
                planes = self._planes(picture)
                decoder, config = self.model.decoder, self.model.config.renderer
                field = SceneField(planes, decoder, config, chunk_size)
            with report.step("extract"):
                return Sample(planes, field, _extract(field, resolution))

        return self.residency.run(work, note=report.note)

    def _planes(self, picture: Array) -> Tensor:
        pixels = network_pixels(picture, self.model.config.cond_image_size)
        planes = self.model(pixels.to(self.device))[0]
        if not bool(planes.isfinite().all()):
            _fail("reconstruct", "the network gave numbers that are not finite")
        return planes


def _extract(field: SceneField, resolution: int) -> ExtractedMesh:
    try:
        return extract_mesh(field, resolution)
    except SurfaceError as error:
        _fail("extract", str(error), error)


def _fail(stage: str, what: str, cause: Exception | None = None) -> NoReturn:
    raise GenerationError(f"stage {stage}: {what}; try another picture") from cause
