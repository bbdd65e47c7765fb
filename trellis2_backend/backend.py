"""TRELLIS.2 as the engine knows it: a cut-out in, a Surface in canonical space out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from onelook.backends import Setup
from onelook.foreground.foreground import Foreground
from onelook.options import Options
from onelook.report import Report
from onelook.surface import Surface
from onelook.weights.locate import checkpoint_folder
from trellis2_backend.frame import Frame
from trellis2_backend.pipeline import Order, Sample, Trellis2Pipeline
from trellis2_backend.settings import Settings
from trellis2_backend.voxel_appearance import VoxelAppearance

CHECKPOINT, ENCODER = "trellis2-4b", "dinov3-vitl16"


class Trellis2Backend:
    """Holds the opened pipeline; each request brings its own seed and numbers."""

    step_shares = {
        "condition": 2,
        "structure": 15,
        "shape": 10,
        "upsample": 2,
        "finer_shape": 25,
        "texture": 15,
        "decode_shape": 6,
        "decode_texture": 6,
        "mesh": 2,
        "remesh": 20,
    }

    def __init__(self, setup: Setup):
        """Raises WeightsError when a checkpoint is missing, damaged or of another model."""
        self._device = setup.device
        self.pipeline = Trellis2Pipeline.open(
            checkpoint_folder(CHECKPOINT, setup.weights),
            checkpoint_folder(ENCODER),
            setup.device,
            setup.vram,
        )

    def generate(
        self, foregrounds: Sequence[Foreground], options: Options, report: Report
    ) -> Surface:
        """The first cut-out -> surface with a PBR material per voxel, +Y up, front +Z.

        Neighbouring faces need not agree in winding. Raises GenerationError when a stage gives
        nothing usable.
        """
        order = order_of(options, self.pipeline.settings)
        (sample,) = self.pipeline.run(subject(foregrounds[0]), order, report)
        report.figures |= {
            "tokens": sample.tokens,
            "voxels": len(sample.coords),
            "resolution": sample.resolution,
            **self.pipeline.residency.metrics(),
        }
        surface = surface_of(sample, self._device)
        if options.remesh:
            from trellis2_backend.remesh import remeshed

            with report.step("remesh"):
                surface = remeshed(surface, sample.resolution, device=self._device)
        return surface


def order_of(options: Options, settings: Settings) -> Order:
    """The options' numbers; what no option says is as in pipeline.json."""
    return Order(
        seed=options.seed,
        pipeline_type=options.pipeline_type,
        structure=replace(
            settings.structure,
            steps=options.sparse_structure_steps,
            guidance_strength=options.sparse_structure_cfg,
        ),
        shape=replace(
            settings.shape,
            steps=options.shape_slat_steps,
            guidance_strength=options.shape_slat_cfg,
        ),
        texture=texture_params(options, settings),
    )


def texture_params(options: Options, settings: Settings):
    """The texture sampler's numbers."""
    return replace(
        settings.texture, steps=options.tex_slat_steps, guidance_strength=options.tex_slat_cfg
    )


def subject(foreground: Foreground) -> Image.Image:
    """RGBA, which the pipeline frames; RGB where nothing is transparent, which it leaves alone."""
    image = Image.fromarray(foreground.image)
    return image if foreground.image[..., 3].min() < 255 else image.convert("RGB")


def surface_of(sample: Sample, device: str) -> Surface:
    """A sample in canonical space: what its faces use is centred, its longest side 1."""
    vertices = sample.mesh.vertices.float().cpu().numpy()
    faces = sample.mesh.faces.cpu().numpy().astype(np.int32)
    is_used = np.zeros(len(vertices), bool)
    is_used[faces] = True
    frame = Frame.fitting(vertices[is_used])
    appearance = VoxelAppearance(
        sample.coords.cpu().numpy(),
        sample.attributes.float().cpu().numpy(),
        sample.resolution,
        frame.voxels_from_canonical(sample.resolution),
        device,
    )
    row = np.cumsum(is_used, dtype=np.int32) - 1
    return Surface(frame.to_canonical(vertices[is_used]), row[faces], appearance)
