"""TRELLIS as the engine knows it: a cut-out in, a Surface in canonical space out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from PIL import Image

from onelook.backends import Setup
from onelook.errors import GenerationError, SurfaceError
from onelook.foreground.foreground import Foreground
from onelook.options import Options
from onelook.report import Report
from onelook.surface import Appearance, Surface
from onelook.vertex_colors import VertexColors
from onelook.weights.locate import checkpoint_folder
from trellis_backend.extract_mesh import ExtractedMesh
from trellis_backend.gaussian_appearance import GaussianAppearance
from trellis_backend.gaussians import Gaussians, write_gaussians
from trellis_backend.pipeline import Sample, TrellisPipeline

Array = np.ndarray

CHECKPOINT, ENCODER = "trellis-image-large", "dinov2-with-registers-large"

# TRELLIS's z-up frame -> canonical: (x, y, z) -> (x, z, -y), as the original turns its GLB.
TO_CANONICAL = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))


class TrellisBackend:
    """Holds the opened pipeline; each request brings its own seed and numbers."""

    step_shares = {
        "condition": 2,
        "structure": 20,
        "latent": 20,
        "decode_mesh": 8,
        "decode_gaussian": 3,
    }

    def __init__(self, setup: Setup):
        """Raises WeightsError when a checkpoint is missing, damaged or of another model."""
        self._device = setup.device
        self.pipeline = TrellisPipeline.open(
            checkpoint_folder(CHECKPOINT, setup.weights),
            checkpoint_folder(ENCODER),
            setup.device,
            setup.vram,
        )

    def generate(
        self, foregrounds: Sequence[Foreground], options: Options, report: Report
    ) -> Surface:
        """Cut-outs of one object -> surface with the Gaussians' colours, +Y up, front +Z.

        Attaches "gaussian_file". Raises GenerationError when a stage gives nothing usable.
        """
        settings, formats = self.pipeline.settings, self.pipeline.formats
        (sample,) = self.pipeline.run(
            [_subject(foreground) for foreground in foregrounds],
            seed=options.seed,
            formats=[name for name in ("mesh", "gaussian") if name in formats],
            structure=replace(
                settings.structure,
                steps=options.sparse_structure_steps,
                cfg_strength=options.sparse_structure_cfg,
            ),
            latent=replace(
                settings.latent, steps=options.slat_steps, cfg_strength=options.slat_cfg
            ),
            multi_image_mode=options.multi_image_mode,
            report=report,
        )
        report.figures["voxels"] = len(sample.coords)
        report.figures.update(self.pipeline.residency.metrics())
        return self._surface(sample, options.seed)

    def _surface(self, sample: Sample, seed: int) -> Surface:
        mesh = sample.mesh
        assert mesh is not None
        rotation = torch.tensor(TO_CANONICAL)
        turned = mesh.vertices.float().cpu() @ rotation.T
        low, high = turned.amin(dim=0), turned.amax(dim=0)
        scale, middle = 1 / float((high - low).max()), (low + high) / 2
        vertices = (scale * (turned - middle)).numpy()
        faces = mesh.faces.cpu().numpy().astype(np.int32)
        gaussians = sample.gaussians
        if gaussians is None:
            return Surface(vertices, faces, _vertex_colors(mesh, vertices, faces, self._device))
        try:
            moved = gaussians.moved(rotation, scale, -scale * middle)
            appearance = self._gaussian_colors(moved, scale)
        except SurfaceError as error:
            raise GenerationError(f"stage decode_gaussian with seed {seed}: {error}") from error
        return Surface(
            vertices, faces, appearance, {"gaussian_file": partial(write_gaussians, gaussians)}
        )

    def _gaussian_colors(self, gaussians: Gaussians, scale: float) -> Appearance:
        """gaussians in canonical space, `scale` times larger than TRELLIS made them."""
        voxel = scale / self.pipeline.networks["gaussian"].config.resolution
        return GaussianAppearance(gaussians, reach=voxel, device=self._device)


def _subject(foreground: Foreground) -> Image.Image:
    """RGBA, which the pipeline frames; RGB where nothing is transparent, which it leaves alone."""
    image = Image.fromarray(foreground.image)
    return image if foreground.image[..., 3].min() < 255 else image.convert("RGB")


def _vertex_colors(mesh: ExtractedMesh, vertices: Array, faces: Array, device: str) -> Appearance:
    """The mesh decoder's own colours; grey from a decoder that has none."""
    if mesh.attributes is None:
        colors = np.full((len(vertices), 3), 0.6, np.float32)
    else:
        colors = mesh.attributes[:, :3].float().cpu().numpy()
    return VertexColors(vertices, faces, colors, device=device)
