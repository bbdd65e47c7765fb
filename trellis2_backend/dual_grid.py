"""Flexible dual grid -> triangles, on any torch device, without a hash map.

Every active voxel holds one vertex, anywhere in or near it, and says for its three axes whether the
surface crosses the voxel's edge along that axis at its upper corner in the other two. Each crossed
edge joins the vertices of the four voxels around it to a quad. The flags do not say in which
direction the surface is crossed, so winding is arbitrary; the asset pipeline makes it agree. From
o-voxel's flexible_dual_grid_to_mesh in microsoft/TRELLIS.2.

N voxels, Q quads, M faces, R voxels per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onelook.errors import SurfaceError
from onelook.isosurface.flexicubes_lattice import Lattice, find

# Per axis, the voxels around the flagged edge, as steps from the voxel that has the flag.
QUAD_STEPS = (
    ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
    ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
    ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
)
_ALONG_02, _ALONG_13 = ((0, 1, 2), (0, 2, 3)), ((0, 1, 3), (3, 1, 2))


@dataclass(frozen=True)
class DualGrid:
    """A surface as active voxels of one object.

    coords (N, 3) integer 0..R - 1, each once; offsets (N, 3) float, the vertex from the voxel's
    lowest corner, in voxels; intersected (N, 3) bool; split_weight (N,) float > 0, which makes a
    quad more likely to be split at this vertex, or None.
    """

    coords: Tensor
    offsets: Tensor
    intersected: Tensor
    resolution: int
    split_weight: Tensor | None = None


@dataclass(frozen=True)
class DualGridMesh:
    """Triangles in TRELLIS's frame: [-0.5, 0.5]^3, +Z up, about.

    vertices (N, 3), one for each voxel, used or not; faces (M, 3) int32, neighbours not agreeing in
    winding.
    """

    vertices: Tensor
    faces: Tensor


def dual_grid_to_mesh(grid: DualGrid) -> DualGridMesh:
    """The mesh of a dual grid: one vertex per voxel, two faces per crossed edge, in voxel order.

    Edges that lack one of their four voxels give nothing. Without weights every quad is split from
    its first to its third corner. Raises SurfaceError when there is no quad at all.
    """
    voxel_size = 1.0 / grid.resolution
    vertices = (grid.coords + grid.offsets) * voxel_size - 0.5
    quads = _quads(grid)
    if not len(quads):
        raise SurfaceError(
            f"the {len(grid.coords)} decoded voxels have no surface between them; try another seed"
            " or picture"
        )
    return DualGridMesh(vertices, _split(quads, grid.split_weight))


def quads_around(
    lattice: Lattice, keys: Tensor, rows: Tensor, flags: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of the four voxels around each flagged edge, (Q, 4) int32, and its place (Q,) in flags.

    keys (N,) ascending numbers of the voxels in `lattice`, rows (N,) each one's row in flags (N, 3)
    bool. Ordered voxel by voxel, then by axis; edges that lack a voxel are left out.
    """
    key_of_row = torch.empty_like(keys)
    key_of_row[rows] = keys
    flagged = flags.flatten().nonzero()[:, 0]  # row by row, axis by axis
    row, axis = flagged // 3, flagged % 3
    steps = torch.tensor([[lattice.step(*s) for s in around] for around in QUAD_STEPS])
    steps = steps.to(keys.device)
    quads = torch.empty(len(row), 4, dtype=torch.int32, device=keys.device)
    quads[:, 0] = row
    key = key_of_row[row]
    for corner in (1, 2, 3):
        at = find(keys, key + steps[axis, corner])
        quads[:, corner] = torch.where(at >= 0, rows[at], -1)
    complete = (quads >= 0).all(1)
    return quads[complete], flagged[complete]


def _quads(grid: DualGrid) -> Tensor:
    if not len(grid.coords):
        return grid.coords.new_empty(0, 4)
    lattice = Lattice.around(grid.coords.amin(0), grid.coords.amax(0))
    keys, rows = torch.sort(lattice.keys(grid.coords))
    return quads_around(lattice, keys, rows, grid.intersected)[0]


def _split(quads: Tensor, weight: Tensor | None) -> Tensor:
    """Quads (Q, 4) -> faces (2 Q, 3), cut along the diagonal whose ends weigh more."""
    faces = quads[:, torch.tensor(_ALONG_02, device=quads.device)]  # (Q, 2, 3)
    if weight is not None:
        w0, w1, w2, w3 = (weight[quads[:, corner]] for corner in range(4))
        other = ~(w0 * w2 > w1 * w3)
        faces[other] = quads[other][:, torch.tensor(_ALONG_13, device=quads.device)]
    return faces.reshape(-1, 3)
