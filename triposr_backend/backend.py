"""TripoSR as the engine knows it: a cut-out in, a Surface in canonical space out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onelook.backends import Setup
from onelook.canonical import CanonicalFrame
from onelook.foreground.foreground import Foreground
from onelook.foreground.framing import resize_foreground
from onelook.nn.triplane_appearance import TriplaneAppearance
from onelook.options import Options
from onelook.report import Report
from onelook.surface import Surface
from onelook.weights.locate import checkpoint_folder
from triposr_backend.film import NerfFilm
from triposr_backend.pipeline import STEP_SHARES, Sample, TripoSRPipeline
from triposr_backend.preparation import over_grey

Array = np.ndarray

CHECKPOINT = "triposr"
# TripoSR's frame (z up, the picture taken from +x) -> canonical: (x, y, z) -> (y, z, x). Its demo
# gives (-y, z, -x), which shows a viewer the object's back.
TO_CANONICAL = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))


class TripoSRBackend:
    """Holds the opened pipeline; each request brings its own numbers. Nothing is random."""

    step_shares = STEP_SHARES

    def __init__(self, setup: Setup):
        """Raises WeightsError when the checkpoint is missing, damaged or of another model."""
        folder = checkpoint_folder(CHECKPOINT, setup.weights)
        self.pipeline = TripoSRPipeline.open(folder, setup.device, setup.vram)

    def generate(
        self, foregrounds: Sequence[Foreground], options: Options, report: Report
    ) -> Surface:
        """Cut-out -> surface with the triplane's colours, +Y up, front +Z.

        Attaches "nerf_video" (mp4, webm, gif or webp, by its path's ending) and "frames_file" (a
        ZIP of PNGs). Raises ForegroundError for a cut-out without a subject, GenerationError when a
        stage gives nothing usable.
        """
        framed = options.foreground_ratio if options.preprocess_image else None
        sample = self.pipeline.run(
            prepare(foregrounds[0].image, framed),
            options.mc_resolution,
            options.chunk_size,
            report,
        )
        report.figures["density_queries"] = sample.mesh.queries
        report.figures.update(self.pipeline.residency.metrics())
        return self._surface(sample)

    def _surface(self, sample: Sample) -> Surface:
        vertices = sample.mesh.vertices.cpu().numpy()
        frame = CanonicalFrame.around(vertices, np.array(TO_CANONICAL))
        film = NerfFilm(sample.field)
        return Surface(
            frame.enter(vertices),
            sample.mesh.faces.cpu().numpy().astype(np.int32),
            TriplaneAppearance(sample.field.colors, frame, self.pipeline.device),
            {"nerf_video": film.write_film, "frames_file": film.write_frames},
        )


def prepare(image: Array, ratio: float | None) -> Array:
    """A cut-out (S, S, 4) uint8, straight alpha -> what the network is shown, (T, T, 3) uint8.

    ratio: share of the side that the subject is to fill; None leaves it where it is. A picture
    without transparency is taken as it is.
    """
    if image[..., 3].min() == 255:
        return image[..., :3]
    return over_grey(image if ratio is None else resize_foreground(image, ratio))
