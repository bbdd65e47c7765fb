"""Triplanes -> triangles with colours, at the cost of the surface.

The mesh models ask for the signed field at every point of the lattice, and for deformation and
weights only where the surface passes: the original joins the features of all two million cells,
16 GB. The NeRF models ask for the density from coarse to fine.

P lattice points, K cells, V vertices, M faces, R cells along a side of the lattice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from instantmesh_backend.config import MeshConfig
from instantmesh_backend.decoder_heads import ColorField, DensityField, ShapeField
from instantmesh_backend.reconstruction import InstantMesh, InstantNeRF, Reconstruction
from onelook.elementwise import map_steadily
from onelook.errors import SurfaceError
from onelook.isosurface.cube_cases import CORNER_OFFSETS
from onelook.isosurface.density_grid import crossed_cells
from onelook.isosurface.flexicubes import DualMesh, cell_weights, flexicubes_cells
from onelook.isosurface.marching_cubes import marching_cubes_cells

WEIGHT_SCALE = 0.5  # of FlexiCubes; its authors use 0.99
NERF_RESOLUTION, NERF_THRESHOLD = 256, 10.0  # points along an axis; infer_config of the originals


@dataclass(frozen=True)
class ExtractedMesh:
    """Triangles in object space: [-1, 1]^3, z up, the side the picture shows faces +x.

    vertices (V, 3) float32; faces (M, 3) int64, counter-clockwise seen from outside; vertex_colors
    (V, 3) float32 0..1, sRGB-encoded; colors: asked at any points, gives the same, not yet clamped.
    """

    vertices: Tensor
    faces: Tensor
    vertex_colors: Tensor
    colors: ColorField


@torch.inference_mode()
def extract_mesh(
    model: Reconstruction,
    planes: Tensor,
    nerf_resolution: int = NERF_RESOLUTION,
    nerf_threshold: float = NERF_THRESHOLD,
) -> ExtractedMesh:
    """planes (1, 3, C, S, S) of one object -> its mesh, on the device of `planes`, which must be
    that of the model; float32.

    nerf_resolution, nerf_threshold: only the NeRF models use them.
    Raises SurfaceError when the planes or the field are not finite, or there is no surface.
    """
    if len(planes) != 1:
        raise ValueError(f"planes must be of one object, got {len(planes)}")
    if not bool(planes.isfinite().all()):
        raise SurfaceError("the triplanes hold numbers that are not finite")
    if isinstance(model, InstantMesh):
        return _signed_mesh(model, planes[0].float())
    assert isinstance(model, InstantNeRF)
    return _density_mesh(model, planes[0].float(), nerf_resolution, nerf_threshold)


def _signed_mesh(model: InstantMesh, planes: Tensor) -> ExtractedMesh:
    config = model.config
    assert isinstance(config, MeshConfig)
    field = ShapeField(planes, model.synthesizer.decoder)
    axis = lattice_axis(config.grid_res, config.grid_scale, planes.device)
    sdf = repair_empty(field.sdf(torch.cartesian_prod(axis, axis, axis)), config.grid_res)
    mesh = lattice_surface(sdf, axis, field.deformation, field.weights)
    return _colored(mesh.vertices, mesh.faces, field.colors())


def _density_mesh(
    model: InstantNeRF, planes: Tensor, resolution: int, threshold: float
) -> ExtractedMesh:
    field = DensityField(planes, model.synthesizer.decoder)
    axis = torch.linspace(-1, 1, resolution, device=planes.device)
    found = crossed_cells(field.density, axis, threshold, field.field.side)
    cells, values = found.cells.cpu().numpy(), found.values.cpu().numpy()
    vertices, faces = marching_cubes_cells(values, cells, threshold)
    placed = torch.from_numpy(vertices).to(planes.device) / (resolution - 1) * 2 - 1
    return _colored(placed, torch.from_numpy(faces).to(planes.device).long(), field.colors)


def _colored(vertices: Tensor, faces: Tensor, colors: ColorField) -> ExtractedMesh:
    return ExtractedMesh(vertices, faces, colors(vertices).clamp(0, 1), colors)


def lattice_axis(resolution: int, scale: float, device: torch.device | None = None) -> Tensor:
    """Coordinates of the lattice's points along each axis: (R + 1,), from -scale / 2 to scale / 2.

    Rounded to five decimals before they are scaled, as the original's are.
    """
    steps = torch.arange(resolution + 1, device=device) / resolution
    return ((steps * 1e5).round() / 1e5 - 0.5) * scale


def repair_empty(sdf: Tensor, resolution: int) -> Tensor:
    """sdf ((R + 1)^3,) -> the same, or where no inner point is on one of the two sides, a box.

    The point next to the middle is lifted and the two outermost layers are lowered, so that a
    surface exists. The rule is the original's, made for the opposite sign: what it gives is no
    object, but extraction does not fail. Raises SurfaceError when sdf is not finite.
    """
    if not bool(sdf.isfinite().all()):
        raise SurfaceError("the signed field holds numbers that are not finite")
    grid = sdf.unflatten(0, (resolution + 1,) * 3)
    inner = grid[1:-1, 1:-1, 1:-1]
    if bool((inner > 0).any()) and bool((inner < 0).any()):
        return sdf
    repaired = torch.full_like(grid, float(-1 - sdf.max()))
    repaired[2:-2, 2:-2, 2:-2] = grid[2:-2, 2:-2, 2:-2]
    middle = resolution // 2 + 1
    repaired[middle, middle, middle] = 1 - sdf.min()
    return repaired.flatten()


def lattice_surface(
    sdf: Tensor,
    axis: Tensor,
    deformation: Callable[[Tensor], Tensor],
    weights: Callable[[Tensor, Tensor], Tensor],
) -> DualMesh:
    """sdf ((R + 1)^3,), x slowest; axis (R + 1,) -> the surface where it changes sign.

    deformation: points (P, 3) -> (P, 3), see `displacement`. weights: points (P, 3) and corners
    (K, 8) as rows of these -> (K, 21). Both are asked only where the surface passes.
    Raises SurfaceError when it passes nowhere.
    """
    resolution = len(axis) - 1
    cells, corners = _crossed(sdf.unflatten(0, (resolution + 1,) * 3) < 0)
    if not len(cells):
        raise SurfaceError("the signed field is nowhere crossed by its zero level")
    is_used = torch.zeros(len(sdf), dtype=torch.bool, device=sdf.device)
    is_used[corners] = True
    used = torch.nonzero(is_used)[:, 0]
    rows = (torch.cumsum(is_used, 0) - 1)[corners]
    places = torch.stack(torch.unravel_index(used, (resolution + 1,) * 3), dim=1)
    points = axis[places]  # (P, 3)
    moved = points + displacement(deformation(points), resolution)
    raw = weights(points, rows)
    return flexicubes_cells(cells, rows, sdf[used], moved, cell_weights(raw, WEIGHT_SCALE))


def displacement(deformation: Tensor, resolution: int) -> Tensor:
    """What the network gives (P, 3) -> how far points move, in world units."""
    return map_steadily(torch.tanh, deformation) / (4 * resolution)


def _crossed(inside: Tensor) -> tuple[Tensor, Tensor]:
    """inside (R + 1, R + 1, R + 1) bool -> crossed cells (K, 3) ascending, corners (K, 8)."""
    some, every = inside, inside
    for axis in range(3):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        some, every = some[low] | some[high], every[low] & every[high]
    cells = torch.nonzero(some & ~every)
    size = len(inside)
    strides = torch.tensor([size * size, size, 1], device=cells.device)
    offsets = torch.tensor(CORNER_OFFSETS, device=cells.device)
    corners = (cells * strides).sum(1, keepdim=True) + (offsets * strides).sum(1)
    return cells, corners
