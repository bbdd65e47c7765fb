"""Features of the mesh decoder's voxels -> triangles with colours.

Every fine voxel brings values for its eight corners and weights for its cell. Corners that several
voxels share take the mean; corners of no voxel lie outside. Only the cells that the surface crosses
are then worked out, so memory grows with the number of voxels and not with R^3. Sums run in a fixed
order: a device gives the same bytes every time.

N voxels, P lattice points, K cells, V vertices, M faces, R cells per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onelook.elementwise import map_steadily
from onelook.errors import SurfaceError
from onelook.isosurface.cube_cases import CORNER_OFFSETS
from onelook.isosurface.flexicubes import cell_weights, flexicubes_cells
from onelook.isosurface.flexicubes_lattice import Lattice, find, sorted_unique

# Channels of a voxel: representations/mesh/cube2mesh.py of microsoft/TRELLIS.
SDF, DEFORM, WEIGHTS, COLOR = slice(0, 8), slice(8, 32), slice(32, 53), slice(53, 101)
CHANNELS, CHANNELS_WITHOUT_COLOR = 101, 53
WEIGHT_SCALE = 0.99
OUTSIDE = 1.0  # the field at points of no voxel


@dataclass(frozen=True)
class ExtractedMesh:
    """Triangles in TRELLIS's frame: [-0.5, 0.5]^3, +Z up.

    vertices (V, 3); faces (M, 3) int64, counter-clockwise seen from outside; attributes (V, 6) 0..1
    (colour, then normal mapped from -1..1), or None from a decoder without colour; face_normals
    (M, 3) of unit length, zero where a face has no area.
    """

    vertices: Tensor
    faces: Tensor
    attributes: Tensor | None

    @property
    def face_normals(self) -> Tensor:
        a, b, c = self.vertices[self.faces].unbind(1)
        return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)


@dataclass(frozen=True)
class _Shell:
    """Lattice points that voxels touch: keys (P,) ascending, voxels (P, 8) the voxel that has the
    point as its corner c, -1 where there is none; sdf (P,) their mean.
    """

    keys: Tensor
    voxels: Tensor
    sdf: Tensor


def extract_mesh(coords: Tensor, feats: Tensor, resolution: int) -> ExtractedMesh:
    """Voxels of one object -> its mesh, on the device of `feats`, worked out in float32.

    coords (N, 3) integer, 0..R - 1, each once; feats (N, 101), or (N, 53) without colour, before
    the bias of the field; resolution R. Raises SurfaceError when the field is nowhere negative, and
    ValueError for another number of channels.
    """
    if feats.ndim != 2 or feats.shape[1] not in (CHANNELS, CHANNELS_WITHOUT_COLOR):
        raise ValueError(
            f"feats must have {CHANNELS} channels, or {CHANNELS_WITHOUT_COLOR} without colour, got "
            f"shape {tuple(feats.shape)}"
        )
    if not len(coords):
        raise SurfaceError("there is no voxel to extract a mesh from; try another seed or picture")
    lattice = Lattice.around(coords.new_zeros(3), coords.new_full((3,), resolution))
    voxel_keys, voxel_rows = torch.sort(lattice.keys(coords))
    shell = _touched_points(lattice, voxel_keys, voxel_rows, feats, resolution)
    cell_keys, corners = _crossed_cells(lattice, shell, resolution)
    point_keys, point_rows, corners = _points_of_cells(lattice, shell.keys, cell_keys, corners)

    known = point_rows >= 0
    sdf = torch.where(known, shell.sdf[point_rows], OUTSIDE)
    voxels = torch.where(known[:, None], shell.voxels[point_rows], -1)
    deform = _mean_over_voxels(feats[:, DEFORM], voxels)
    reach = (1 - 1e-8) / (2 * resolution)
    moves = reach * map_steadily(torch.tanh, deform)
    positions = lattice.places(point_keys).float() / resolution - 0.5 + moves
    colors = None
    if feats.shape[1] == CHANNELS:
        colors = map_steadily(torch.sigmoid, _mean_over_voxels(feats[:, COLOR], voxels))
    own_voxel = find(voxel_keys, cell_keys)
    raw_weights = feats[voxel_rows[own_voxel], WEIGHTS].float()
    raw_weights[own_voxel < 0] = 0  # cells of no voxel, next to one
    weights = cell_weights(raw_weights, WEIGHT_SCALE)
    mesh = flexicubes_cells(lattice.places(cell_keys), corners, sdf, positions, weights, colors)
    return ExtractedMesh(mesh.vertices, mesh.faces, mesh.attributes)


def _touched_points(
    lattice: Lattice, voxel_keys: Tensor, voxel_rows: Tensor, feats: Tensor, resolution: int
) -> _Shell:
    """All corners of the voxels, and the mean of the field at each."""
    keys = lattice.grown(voxel_keys, 1)
    voxels = torch.empty(len(keys), 8, dtype=torch.int64, device=keys.device)
    for corner, offset in enumerate(CORNER_OFFSETS.tolist()):
        at = find(voxel_keys, keys - lattice.step(*offset))
        voxels[:, corner] = torch.where(at >= 0, voxel_rows[at], -1)
    sdf = _mean_over_voxels(feats[:, SDF], voxels, bias=-1.0 / resolution)[:, 0]
    return _Shell(keys, voxels, sdf)


def _mean_over_voxels(feats: Tensor, voxels: Tensor, bias: float = 0.0) -> Tensor:
    """Corner values feats (N, 8 * C) -> their mean at points (P, C), 0 at points of no voxel."""
    channels = feats.shape[1] // 8
    total = torch.zeros(len(voxels), channels, device=feats.device)
    for corner in range(8):
        at = voxels[:, corner]
        values = feats[:, corner * channels : (corner + 1) * channels].index_select(
            0, at.clamp(min=0)
        )
        total += torch.where(at[:, None] >= 0, values.float() + bias, 0)
    return total / (voxels >= 0).sum(1, keepdim=True).clamp_(min=1)


def _crossed_cells(lattice: Lattice, shell: _Shell, resolution: int) -> tuple[Tensor, Tensor]:
    """Cells of the grid with corners on both sides -> keys (K,) ascending, corners (K, 8) as rows
    of the shell, -1 for points outside it.

    A crossed cell has an inside corner, so those around inside points are all there are.
    """
    keys = lattice.grown(shell.keys[shell.sdf < 0], -1)
    places = lattice.places(keys)
    keys = keys[((places >= 0) & (places < resolution)).all(1)]
    corners = torch.stack(
        [find(shell.keys, keys + lattice.step(*offset)) for offset in CORNER_OFFSETS.tolist()], 1
    )
    inside = (corners >= 0) & (shell.sdf[corners] < 0)
    crossed = inside.any(1) & ~inside.all(1)
    if not crossed.any():
        raise SurfaceError(
            "the decoded field is nowhere crossed by its zero level, so there is no surface; "
            "try another seed or picture"
        )
    return keys[crossed], corners[crossed]


def _points_of_cells(
    lattice: Lattice, shell_keys: Tensor, cell_keys: Tensor, corners: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The points that crossed cells use -> keys (P,), rows of the shell (P,) or -1, and corners
    (K, 8) as rows of these.
    """
    steps = [lattice.step(*offset) for offset in CORNER_OFFSETS.tolist()]
    corner_keys = cell_keys[:, None] + torch.tensor(steps, device=cell_keys.device)
    beyond = sorted_unique(corner_keys[corners < 0])  # corners of no voxel
    if len(beyond):
        corners = torch.where(corners < 0, len(shell_keys) + find(beyond, corner_keys), corners)
    keys = torch.cat([shell_keys, beyond])
    rows = torch.arange(len(keys), device=keys.device)
    rows[len(shell_keys) :] = -1
    is_used = torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
    is_used[corners] = True
    renumbered = torch.cumsum(is_used, 0) - 1
    return keys[is_used], rows[is_used], renumbered[corners]
