"""InstantMesh as the engine knows it: a cut-out in, a Surface in canonical space out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from instantmesh_backend.config import RECONSTRUCTION, ReconstructionConfig
from instantmesh_backend.extract_mesh import ExtractedMesh
from instantmesh_backend.original_config import read_original_config
from instantmesh_backend.pipeline import STEP_SHARES, VARIANT, InstantMeshPipeline
from instantmesh_backend.preparation import write_views
from onelook.backends import Setup
from onelook.canonical import CanonicalFrame
from onelook.foreground.foreground import Foreground
from onelook.foreground.framing import resize_foreground
from onelook.nn.triplane_appearance import TriplaneAppearance
from onelook.options import Options
from onelook.report import Report
from onelook.surface import Surface
from onelook.weights.locate import checkpoint_folder
from onelook.weights.manifest import checkpoint

Array = np.ndarray

ZERO123PLUS, UNET = "zero123plus-v1.2", "instantmesh-unet"
# variant -> checkpoint of the weights manifest
CHECKPOINTS = {
    "instant-mesh-large": "instantmesh-large",
    "instant-mesh-base": "instantmesh-base",
    "instant-nerf-large": "instantnerf-large",
    "instant-nerf-base": "instantnerf-base",
}
# InstantMesh's frame (z up, the picture taken from +x) -> canonical: (x, y, z) -> (y, z, x). The
# original's GLB is the same turned by 180 degrees about the vertical, its OBJ a mirror image.
TO_CANONICAL = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))


class InstantMeshBackend:
    """Holds the opened pipeline; each request brings its own seed and numbers."""

    step_shares = STEP_SHARES

    def __init__(self, setup: Setup, variant: str = VARIANT):
        """variant: of `config.RECONSTRUCTION`.

        setup.weights may name a folder with the reconstruction model alone, or with the UNet, too;
        a yaml file of the variant's name beside it, in the original's form, replaces its numbers.
        Raises WeightsError when a checkpoint is missing, damaged or of another model.
        """
        name = CHECKPOINTS[variant]
        folder = checkpoint_folder(name, setup.weights)
        self.pipeline = InstantMeshPipeline.open(
            checkpoint_folder(ZERO123PLUS),
            _unet_beside(folder),
            folder / checkpoint(name).files[0].path,
            _config_beside(folder, variant),
            setup.device,
            setup.vram,
        )

    def generate(
        self, foregrounds: Sequence[Foreground], options: Options, report: Report
    ) -> Surface:
        """Cut-out -> surface with the triplane's colours, +Y up, front +Z.

        Attaches "views_image". Raises ForegroundError for a cut-out without a subject,
        GenerationError when a stage gives nothing usable.
        """
        sample = self.pipeline.run(
            _subject(foregrounds[0], options.preprocess_image),
            options.seed,
            options.diffusion_steps,
            options.diffusion_cfg,
            report,
        )
        report.figures.update(self.pipeline.residency.metrics())
        return self._surface(sample.mesh, sample.views)

    def _surface(self, mesh: ExtractedMesh, views: Array) -> Surface:
        vertices = mesh.vertices.cpu().numpy()
        frame = CanonicalFrame.around(vertices, np.array(TO_CANONICAL))
        return Surface(
            frame.enter(vertices),
            mesh.faces.cpu().numpy().astype(np.int32),
            TriplaneAppearance(mesh.colors, frame, self.pipeline.device),
            {"views_image": partial(write_views, views)},
        )


def _subject(foreground: Foreground, is_framed: bool) -> Image.Image:
    """A cut-out is framed as the original's are; a picture to be taken as it is stays so."""
    image = foreground.image
    if is_framed and image[..., 3].min() < 255:
        image = resize_foreground(image)
    return Image.fromarray(image)


def _unet_beside(folder: Path) -> Path:
    """InstantMesh's UNet: from the same folder where it is there, else from its own place."""
    file = checkpoint(UNET).files[0].path
    return folder / file if (folder / file).is_file() else checkpoint_folder(UNET) / file


def _config_beside(folder: Path, variant: str) -> ReconstructionConfig:
    path = folder / f"{variant}.yaml"
    return read_original_config(path).reconstruction if path.is_file() else RECONSTRUCTION[variant]
