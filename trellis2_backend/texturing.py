"""Paint an existing mesh from a picture: TRELLIS.2's second pipeline, from file to asset.

The mesh becomes a dual grid, the networks give every voxel of it a material, and the materials are
baked onto the mesh as it was: its own triangles, in its own place and size.

N voxels, K vertices, R voxels per axis.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from onelook.asset.asset import Asset
from onelook.asset.bake import bake
from onelook.asset.build import choose_alpha_mode
from onelook.asset.lay_out import lay_out, own_layout
from onelook.asset.load import JoinedMesh
from onelook.asset.repaint import is_closed_outward
from onelook.asset.topology import first_at_position
from onelook.backends import Setup
from onelook.foreground.foreground import Foreground
from onelook.options import Options
from onelook.report import Report
from onelook.surface import Surface
from onelook.weights.locate import checkpoint_folder
from trellis2_backend.backend import subject, texture_params
from trellis2_backend.dual_grid import DualGrid
from trellis2_backend.frame import Frame
from trellis2_backend.mesh_to_dual_grid import mesh_to_dual_grid
from trellis2_backend.painting import PaintingPipeline
from trellis2_backend.voxel_appearance import VoxelAppearance

Array = np.ndarray
# A dual grid -> base colour, metallic, roughness and alpha of its voxels, (N, 6) float 0..1.
Painter = Callable[[DualGrid], Tensor]

# The longest side is a hair under 1, so that no vertex lies on the grid's end.
FRAME = Frame(1 / 0.99999, np.zeros(3))
CHECKPOINT, SHAPE_ENCODER, ENCODER = "trellis2-4b", "trellis2-texturing", "dinov3-vitl16"


class MeshTexturer:
    """Holds the opened networks; each request brings its own mesh, picture, seed and numbers."""

    step_shares = {"voxelise": 4, **PaintingPipeline.step_shares, "lay out": 10, "bake": 10}

    def __init__(self, setup: Setup):
        """Raises WeightsError when a checkpoint is missing, damaged or of another model."""
        self._device = setup.device
        self.pipeline = PaintingPipeline.open(
            checkpoint_folder(CHECKPOINT, setup.weights),
            checkpoint_folder(SHAPE_ENCODER, setup.weights),
            checkpoint_folder(ENCODER),
            setup.device,
            setup.vram,
        )

    def texture(
        self,
        mesh: JoinedMesh,
        foreground: Foreground,
        options: Options,
        report: Report,
        *,
        resolution: int = 1024,
        keep_uvs: bool = True,
    ) -> Asset:
        """See `texture_mesh`; the picture shows the mesh's front. Of the options seed,
        tex_slat_steps, tex_slat_cfg and texture_pixels count.

        Raises SurfaceError for a mesh that the grid does not catch, GenerationError when a stage
        gives nothing usable.
        """

        def paint(grid: DualGrid) -> Tensor:
            params = texture_params(options, self.pipeline.settings)
            return self.pipeline.paint(grid, subject(foreground), options.seed, params, report)

        asset = texture_mesh(
            mesh,
            paint,
            resolution,
            options.texture_pixels,
            keep_uvs=keep_uvs,
            report=report,
            device=self._device,
        )
        report.figures |= self.pipeline.residency.metrics()
        return asset


def texture_mesh(
    mesh: JoinedMesh,
    paint: Painter,
    resolution: int,
    texture_size: int,
    *,
    keep_uvs: bool = True,
    report: Report,
    device: str | None = None,
) -> Asset:
    """The mesh with textures of texture_size pixels, painted on a grid of R^3 voxels.

    mesh: +Y up, its front facing +Z; its faces stay as they are. keep_uvs: bake onto the file's
    own UVs where they are good (see `own_layout`); otherwise a new atlas is made. Raises
    SurfaceError for a mesh that crosses no edge of the grid.
    """
    with report.step("voxelise"):
        grid = voxelise(mesh.vertices, mesh.faces, resolution)
    attributes = paint(grid).float().cpu().numpy()
    with report.step("lay out"):
        laid_out = own_layout(mesh.vertices, mesh.faces, mesh.parts) if keep_uvs else None
        report.figures["own_uvs"] = laid_out is not None
        laid_out = laid_out or lay_out(mesh.vertices, mesh.faces, mesh.parts, texture_size)
    with report.step("bake"):
        appearance = VoxelAppearance(
            grid.coords.numpy(),
            attributes,
            resolution,
            FRAME.voxels_from_canonical(resolution),
            device,
        )
        textures = bake(
            laid_out.vertices,
            laid_out.normals,
            laid_out.uvs,
            laid_out.faces,
            Surface(mesh.vertices, mesh.faces, appearance),
            texture_size,
            project=False,
            on_progress=report.advance,
            device=device,
        )
    alpha_mode = choose_alpha_mode(textures.base_color[..., 3])
    report.figures |= {
        "faces": len(laid_out.faces),
        "vertices": len(laid_out.vertices),
        "voxels": len(grid.coords),
        "texture_size": texture_size,
        "alpha_mode": alpha_mode,
    }
    return Asset(
        vertices=mesh.placed(laid_out.vertices),
        normals=laid_out.normals,
        uvs=laid_out.uvs,
        faces=laid_out.faces,
        textures=textures,
        is_closed=is_closed_outward(laid_out.vertices, laid_out.faces),
        alpha_mode=alpha_mode,
    )


def voxelise(vertices: Array, faces: Array, resolution: int) -> DualGrid:
    """A mesh in canonical space -> its dual grid, on the CPU, as the shape encoder expects it.

    Vertices at one place are taken for one: a cut along a UV seam is no border.
    """
    welded = first_at_position(vertices)[faces]
    return mesh_to_dual_grid(FRAME.from_canonical(vertices), welded, resolution)
