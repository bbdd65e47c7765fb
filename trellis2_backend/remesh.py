"""A closed skin around any triangles: dual contouring in a narrow band around them.

The skin lies where the distance to the mesh, without a sign, is `band` cells. A sheet becomes a
thin closed body; a closed body gets an outer and an inner skin, of which the asset pipeline drops
the one that nobody sees. Cells are found from coarse to fine, so memory grows with the surface.
After remesh_narrow_band_dc of JeffreyXiang/CuMesh; Ju et al., "Dual Contouring of Hermite Data",
2002.

N cells, K grid points, V vertices, M faces, P points, R cells per axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onelook.closest_point import ClosestPoint
from onelook.errors import SurfaceError
from onelook.isosurface.flexicubes_lattice import Lattice, find
from onelook.surface import Appearance, Material, Surface
from trellis2_backend.dual_grid import quads_around

Array = np.ndarray

COARSEST = 32  # cells per axis of the first grid, at most
REACH = 0.87  # in cells: a little over half of a cell's diagonal
MARGIN = 3  # bands by which the grid is wider than the object, both sides together
_CORNERS = np.array([[c >> 2, c >> 1 & 1, c & 1] for c in range(8)])  # z fastest
_CHILDREN = _CORNERS[:, ::-1].copy()  # x fastest
_CORNER_STEPS = (4, 2, 1)  # from a corner to the next one along x, y, z
_EDGES = [(axis, c) for axis in range(3) for c in range(8) if not c & _CORNER_STEPS[axis]]
# a quad's faces where the distance grows along the axis, cut from corner 0 to 2 and from 1 to 3
_CUT_02, _CUT_13 = ((0, 2, 1), (0, 3, 2)), ((0, 3, 1), (3, 2, 1))


@dataclass(frozen=True)
class Grid:
    """A cube of R^3 cells about its centre; R at most 32 times a power of two, side its length."""

    resolution: int
    side: float
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def points(self, places: Array, resolution: int) -> Array:
        """places (N, 3), in cells of this cube cut into `resolution`^3 -> points (N, 3) float32."""
        return ((places / resolution - 0.5) * self.side + self.centre).astype(np.float32)


def remeshed(
    surface: Surface,
    resolution: int,
    *,
    band: float = 1.0,
    project: float = 0.0,
    device: str | None = None,
) -> Surface:
    """A surface in canonical space as a closed skin, with the material of the surface within.

    resolution: cells along the longest side; band, project: see `closed_skin`. device: where
    distances are measured, "cpu" or "cuda:N", None for the best.
    """
    within = NearestOf(surface.vertices, surface.faces, device)
    grid = Grid(resolution, (resolution + MARGIN * band) / resolution)
    vertices, faces = closed_skin(within, grid, band, project)
    appearance = _AppearanceWithin(within, surface.appearance)
    return replace(surface, vertices=vertices, faces=faces, appearance=appearance)


class NearestOf:
    """Distances to triangles and their nearest points."""

    def __init__(self, vertices: Array, faces: Array, device: str | None = None):
        """vertices (V, 3) float, faces (M, 3) int; device "cpu" or "cuda:N", None for the best."""
        self._vertices = vertices
        self._closest = ClosestPoint(vertices, faces, device)

    def distance(self, points: Array, limit: float) -> Array:
        """points (P, 3) -> distances (P,) float32; infinite beyond `limit`."""
        return self._closest.query(points, limit).distance

    def points(self, points: Array) -> Array:
        """points (P, 3) -> the nearest points (P, 3) float32."""
        return self._closest.interpolate(self._vertices, self._closest.query(points))


class _AppearanceWithin:
    """The appearance of the surface that a skin is around, asked at its nearest points."""

    def __init__(self, within: NearestOf, appearance: Appearance):
        self._within, self._appearance = within, appearance

    def sample(self, points: Array, normals: Array) -> Material:
        return self._appearance.sample(self._within.points(points), normals)


def closed_skin(
    mesh: NearestOf, grid: Grid, band: float = 1.0, project: float = 0.0
) -> tuple[Array, Array]:
    """The skin around a mesh: vertices (V, 3) float32 and faces (M, 3) int32.

    band: distance of the skin from the mesh, in cells. project: share of that distance by which
    vertices are moved to the mesh in the end. Faces are counter-clockwise seen from the side away
    from the mesh. Raises SurfaceError when the mesh does not come near the grid.
    """
    level = band * grid.side / grid.resolution
    cells = _cells_near(mesh, grid, level)
    if not len(cells):
        raise SurfaceError("the mesh lies outside of the grid in which it is to be remeshed")
    lattice = Lattice.around(cells.amin(0), cells.amax(0))
    values = _values_at_corners(mesh, grid, level, lattice, cells)
    inside = values < 0
    places = cells.numpy() + _mean_of_crossings(values.numpy(), inside.numpy())
    vertices = grid.points(places, grid.resolution)
    faces = _faces(lattice, cells, inside, vertices).numpy()
    used, faces = np.unique(faces, return_inverse=True)
    vertices = vertices[used]
    if project > 0:
        vertices = vertices + np.float32(project) * (mesh.points(vertices) - vertices)
    return vertices, faces.reshape(-1, 3).astype(np.int32)


def _cells_near(mesh: NearestOf, grid: Grid, level: float) -> Tensor:
    """Cells that the skin may pass through, (N, 3) int64: x slowest at first, children x first."""
    size = grid.resolution
    while size > COARSEST and size % 2 == 0:
        size //= 2
    axis = np.arange(size)
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    while True:
        reach = REACH * grid.side / size
        distance = mesh.distance(grid.points(cells + 0.5, size), level + reach)
        cells = cells[np.abs(distance - level) < reach]
        if size == grid.resolution:
            return torch.from_numpy(cells)
        cells, size = (2 * cells[:, None] + _CHILDREN).reshape(-1, 3), 2 * size


def _values_at_corners(
    mesh: NearestOf, grid: Grid, level: float, lattice: Lattice, cells: Tensor
) -> Tensor:
    """Distance to the mesh less the level at every corner of the cells: (N, 8) float32."""
    keys = lattice.keys(cells)
    points = lattice.grown(torch.sort(keys).values, 1)  # (K,)
    limit = level + 3 * grid.side / grid.resolution  # of corners, 1.74 cells would do
    places = lattice.places(points).numpy()
    distance = mesh.distance(grid.points(places, grid.resolution), limit)
    value = torch.from_numpy(distance - np.float32(level))
    corners = [value[find(points, keys + lattice.step(*c))] for c in _CORNERS.tolist()]
    return torch.stack(corners, 1)


def _mean_of_crossings(values: Array, inside: Array) -> Array:
    """values, inside (N, 8) -> where the skin crosses each cell's edges, on average: (N, 3) 0..1.

    The centre of cells that it does not cross.
    """
    total, count = np.zeros((len(values), 3)), np.zeros((len(values), 1))
    for axis, c in _EDGES:
        other = c + _CORNER_STEPS[axis]
        crossed = np.flatnonzero(inside[:, c] != inside[:, other])
        start, end = values[crossed, c].astype(np.float64), values[crossed, other]
        total[crossed] += _CORNERS[c]
        total[crossed, axis] += start / (start - end)
        count[crossed] += 1
    return np.where(count > 0, total / np.maximum(count, 1), 0.5)


def _faces(lattice: Lattice, cells: Tensor, inside: Tensor, vertices: Array) -> Tensor:
    """Two faces for every crossed edge that has four cells: (M, 3) int64."""
    upper = [7 - step for step in _CORNER_STEPS]  # the edge's start; its end is corner 7
    grows = inside[:, upper] & ~inside[:, 7:]
    falls = ~inside[:, upper] & inside[:, 7:]
    keys, rows = torch.sort(lattice.keys(cells))
    quads, flag = quads_around(lattice, keys, rows, grows | falls)
    quads = quads.long()
    a, b, c = (torch.from_numpy(vertices)[quads[:, corner]] for corner in range(3))
    is_flat = (torch.linalg.cross(b - a, c - a) == 0).all(1)
    cuts = torch.where(is_flat[:, None, None], torch.tensor(_CUT_13), torch.tensor(_CUT_02))
    turned = cuts[:, :, [0, 2, 1]]
    cuts = torch.where(grows.flatten()[flag][:, None, None], cuts, turned)
    return quads.gather(1, cuts.flatten(1)).reshape(-1, 3)
