"""A triplane -> triangles with colours: marching cubes where its density crosses a level.

V vertices, M faces, R grid points along an axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onelook.errors import SurfaceError
from onelook.isosurface.density_grid import crossed_cells
from onelook.isosurface.marching_cubes import marching_cubes_cells
from triposr_backend.scene_field import SceneField

RESOLUTION, THRESHOLD = 256, 25.0  # the original's; the inside is where density is no less


@dataclass(frozen=True)
class ExtractedMesh:
    """Triangles in world space: [-radius, radius]^3, z up, the side the picture shows faces +x.

    vertices (V, 3) float32; faces (M, 3) int64, counter-clockwise seen from outside, open where the
    surface meets the border of the cube; vertex_colors (V, 3) float32 0..1, sRGB-encoded; queries:
    how many points of the grid were asked for.
    """

    vertices: Tensor
    faces: Tensor
    vertex_colors: Tensor
    queries: int


@torch.inference_mode()
def extract_mesh(
    field: SceneField, resolution: int = RESOLUTION, threshold: float = THRESHOLD
) -> ExtractedMesh:
    """The surface of a field, on the field's device.

    Raises SurfaceError when the density never crosses the threshold or is not finite.
    """
    axis = grid_axis(resolution, field.config.radius, field.device)
    found = crossed_cells(field.density, axis, threshold, field.side)
    if not bool(found.values.isfinite().all()):
        raise SurfaceError("the density holds numbers that are not finite")
    cells, values = found.cells.cpu().numpy(), found.values.cpu().numpy()
    indexed, faces = marching_cubes_cells(values, cells, threshold)
    radius = field.config.radius
    placed = torch.from_numpy(indexed).to(field.device) / (resolution - 1) * (2 * radius) - radius
    numbered = torch.from_numpy(faces).to(field.device).long()
    return ExtractedMesh(placed, numbered, field.colors(placed), found.queries)


def grid_axis(resolution: int, radius: float, device: torch.device | None = None) -> Tensor:
    """Coordinates of the grid's points along each axis: (R,), from -radius to radius."""
    return torch.linspace(0, 1, resolution, device=device) * (2 * radius) - radius
