"""FlexiCubes: triangles of a signed field whose cells carry weights of their own.

Shen et al., Flexible Isosurface Extraction for Gradient-Based Mesh Optimization, SIGGRAPH 2023, as
TRELLIS and InstantMesh use it at inference. Every cell that the surface passes through gets one
vertex per sheet of surface, a weighted mean of the zero points on its edges; every cut edge joins
the vertices of the four cells around it. Given only cells near the surface, memory grows with the
surface and not with the cube. Nothing is scattered, so a device gives the same bytes every time.

K cells, P lattice points, N vertices, M faces, C attributes, Q quads, R cells per axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from onelook.elementwise import map_steadily
from onelook.errors import SurfaceError
from onelook.isosurface.cube_cases import CORNER_OFFSETS
from onelook.isosurface.flexicubes_lattice import Lattice, find
from onelook.isosurface.flexicubes_tables import EDGE_CORNERS, MOST_EDGES, MOST_GROUPS, dual_cases

# The edges that start at a cell's lowest corner or end there, one per axis, in the order of their
# second ends; the corner they start from; and the four cells around each, in lattice order, with
# the number the edge has in each of them.
_OWN_EDGES = ((8, 2), (3, 0), (0, 0))  # along y, z, x: (edge, first corner)
_AROUND = (
    (((-1, 0, -1), 10), ((-1, 0, 0), 9), ((0, 0, -1), 11), ((0, 0, 0), 8)),
    (((-1, -1, 0), 5), ((-1, 0, 0), 1), ((0, -1, 0), 7), ((0, 0, 0), 3)),
    (((0, -1, -1), 6), ((0, -1, 0), 4), ((0, 0, -1), 2), ((0, 0, 0), 0)),
)


@dataclass(frozen=True)
class CellWeights:
    """beta (K, 12) of the edges, alpha (K, 8) of the corners, gamma (K,) of the split; all > 0."""

    beta: Tensor
    alpha: Tensor
    gamma: Tensor

    def __getitem__(self, rows: Tensor) -> CellWeights:
        """The weights of some cells."""
        return CellWeights(self.beta[rows], self.alpha[rows], self.gamma[rows])


@dataclass(frozen=True)
class DualMesh:
    """vertices (N, 3) in the units and frame of the positions; faces (M, 3) int64, wound so that
    normals point to positive values; attributes (N, C), or None where none were given.
    """

    vertices: Tensor
    faces: Tensor
    attributes: Tensor | None


def cell_weights(raw: Tensor, scale: float) -> CellWeights:
    """A network's raw weights (K, 21) -> CellWeights: 12 beta, 8 alpha, 1 gamma.

    scale is how far they may reach: 0.99 in TRELLIS, 0.5 in InstantMesh. Raw 0 gives 1, 1 and 0.5.
    """
    beta, alpha, gamma = raw.split([12, 8, 1], dim=1)
    return CellWeights(
        beta=map_steadily(torch.tanh, beta) * scale + 1,
        alpha=map_steadily(torch.tanh, alpha) * scale + 1,
        gamma=map_steadily(torch.sigmoid, gamma[:, 0]) * scale + (1 - scale) / 2,
    )


def flexicubes_cells(
    cells: Tensor,
    corners: Tensor,
    sdf: Tensor,
    positions: Tensor,
    weights: CellWeights | None = None,
    attributes: Tensor | None = None,
) -> DualMesh:
    """Surface of some cells.

    cells (K, 3) integer: lowest corner of each, ascending (x slowest, z fastest), each once; every
    cell that the surface crosses must be there, others may be. corners (K, 8) int64: rows of each
    cell's corners in sdf (P,), positions (P, 3) and attributes (P, C); corner c has the offset
    (c & 1, c >> 1 & 1, c >> 2 & 1). The inside is where sdf < 0. weights: of the K cells; None is 1
    everywhere. Where the surface leaves the cells it stays open.

    Vertices and faces come in the order of the original: vertices by number of sheets in their
    cell, then by cell; quads by the sign of their edge's first end, then by edge. Raises
    SurfaceError when no cell is crossed, or none that has its neighbours.
    """
    inside = sdf[corners] < 0  # (K, 8)
    crossed = torch.nonzero(inside.any(1) & ~inside.all(1))[:, 0]
    if not len(crossed):
        raise SurfaceError(
            "the signed field is nowhere crossed by its zero level, so there is no surface; "
            "try another seed or picture"
        )
    cells, corners, inside = cells[crossed], corners[crossed], inside[crossed]
    weights = weights[crossed] if weights is not None else _plain_weights(len(cells), sdf)

    lattice = Lattice.around(cells.amin(0), cells.amax(0))
    keys = lattice.keys(cells)
    tables = _tables(sdf.device)
    cases = _cases(inside, keys, lattice, tables)  # (K,)
    counts = tables.group_counts[cases]
    cell_of_vertex, group_of_vertex, first_vertex = _number_vertices(counts)
    edges = tables.groups[cases[cell_of_vertex], group_of_vertex]  # (N, 7), -1 where none
    values = positions if attributes is None else torch.cat([positions, attributes], dim=1)
    vertices = _dual_vertices(cell_of_vertex, edges, corners, sdf, values, weights)

    quads, starts_outside = _quads(keys, inside, lattice, first_vertex, tables.group_of_edge[cases])
    if not len(quads):
        raise SurfaceError("the surface nowhere has four cells round an edge, so it has no faces")
    faces = _triangles(quads, starts_outside, weights.gamma[cell_of_vertex])
    return DualMesh(vertices[:, :3], faces, None if attributes is None else vertices[:, 3:])


def flexicubes(
    sdf: Tensor,
    positions: Tensor,
    weights: CellWeights | None = None,
    attributes: Tensor | None = None,
) -> DualMesh:
    """Surface of a whole grid: sdf ((R + 1)^3,), positions ((R + 1)^3, 3), x slowest, z fastest.

    weights: of all R^3 cells in the same order; attributes ((R + 1)^3, C). The rest is as in
    `flexicubes_cells`, which is what to use where R is large. Raises ValueError when sdf is not a
    cube of at least 2 points per axis.
    """
    points = round(len(sdf) ** (1 / 3))
    if points < 2 or points**3 != len(sdf) or sdf.ndim != 1:
        raise ValueError(f"sdf must hold (R + 1)^3 values with R >= 1, got {tuple(sdf.shape)}")
    axis = torch.arange(points - 1, device=sdf.device)
    cells = torch.cartesian_prod(axis, axis, axis)  # (R^3, 3)
    strides = torch.tensor([points * points, points, 1], device=sdf.device)
    offsets = torch.tensor(CORNER_OFFSETS, device=sdf.device)
    corners = (cells * strides).sum(1, keepdim=True) + (offsets * strides).sum(1)
    return flexicubes_cells(cells, corners, sdf, positions, weights, attributes)


@dataclass(frozen=True)
class _Tables:
    groups: Tensor
    group_counts: Tensor
    group_of_edge: Tensor
    twin_rows: Tensor


@cache
def _tables(device: torch.device) -> _Tables:
    cases = dual_cases()
    made = (cases.groups, cases.group_counts, cases.group_of_edge, cases.twin_rows)
    return _Tables(*(torch.tensor(table, dtype=torch.int64, device=device) for table in made))


def _plain_weights(count: int, like: Tensor) -> CellWeights:
    return CellWeights(like.new_ones(count, 12), like.new_ones(count, 8), like.new_ones(count))


def _cases(inside: Tensor, keys: Tensor, lattice: Lattice, tables: _Tables) -> Tensor:
    """Case of each cell; of two cells that could pinch the surface between them, the complement."""
    bits = 1 << torch.arange(8, device=inside.device)
    cases = (inside * bits).sum(1)
    rows = tables.twin_rows[cases]
    flagged = torch.nonzero(rows[:, 0])[:, 0]
    x, y, z = rows[flagged, 1:4].unbind(1)
    across = find(keys, keys[flagged] + lattice.step(x, y, z))
    has_twin = (across >= 0) & (rows[across, 0] > 0)
    turned = flagged[has_twin]
    return cases.index_put((turned,), rows[turned, 4])


def _number_vertices(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices per cell (K,) -> cell and group of each vertex (N,), first vertex of each cell (K,).

    Cells with one vertex come first, then those with two, and so on.
    """
    first = torch.empty_like(counts)
    cell_of_vertex, group_of_vertex, total = [], [], 0
    for count in range(1, MOST_GROUPS + 1):
        cells = torch.nonzero(counts == count)[:, 0]
        first[cells] = total + count * torch.arange(len(cells), device=counts.device)
        cell_of_vertex.append(cells.repeat_interleave(count))
        group_of_vertex.append(torch.arange(count, device=counts.device).repeat(len(cells)))
        total += count * len(cells)
    return torch.cat(cell_of_vertex), torch.cat(group_of_vertex), first


def _dual_vertices(
    cell: Tensor,
    edges: Tensor,
    corners: Tensor,
    sdf: Tensor,
    values: Tensor,
    weights: CellWeights,
) -> Tensor:
    """Mean of the values (P, C) at the zero points of each vertex's edges, weighted by beta.

    One edge of every vertex at a time, so the sums have an order.
    """
    ends = torch.tensor(EDGE_CORNERS, device=cell.device)
    total = values.new_zeros(len(cell), values.shape[1])
    total_weight = values.new_zeros(len(cell), 1)
    for slot in range(MOST_EDGES):
        rows = torch.nonzero(edges[:, slot] >= 0)[:, 0]
        edge, at = edges[rows, slot], cell[rows]
        a, b = ends[edge].unbind(1)
        point_a, point_b = corners[at, a], corners[at, b]
        level_a = (sdf[point_a] * weights.alpha[at, a])[:, None]
        level_b = (sdf[point_b] * weights.alpha[at, b])[:, None]
        zero = (values[point_a] * level_b - values[point_b] * level_a) / (level_b - level_a)
        beta = weights.beta[at, edge][:, None]
        total[rows] += beta * zero
        total_weight[rows] += beta
    return total / total_weight


def _quads(
    keys: Tensor, inside: Tensor, lattice: Lattice, first_vertex: Tensor, group_of_edge: Tensor
) -> tuple[Tensor, Tensor]:
    """Cut edges with four cells -> their vertices in cell order (Q, 4), and whether they start
    outside (Q,); in the order of the edges: by first end, then by second.
    """
    quads, order, starts_outside = [], [], []
    for rank, ((edge, start), around) in enumerate(zip(_OWN_EDGES, _AROUND, strict=True)):
        own = torch.nonzero(group_of_edge[:, edge] >= 0)[:, 0]
        neighbours = [
            find(keys, keys[own] + lattice.step(*offset)) if any(offset) else own
            for offset, _ in around
        ]
        cells = torch.stack(neighbours, dim=1)  # (edges, 4)
        complete = (cells >= 0).all(1)
        own, cells = own[complete], cells[complete]
        edge_numbers = torch.tensor([number for _, number in around], device=keys.device)
        quads.append(first_vertex[cells] + group_of_edge[cells, edge_numbers])
        order.append((keys[own] + lattice.step(*CORNER_OFFSETS[start].tolist())) * 3 + rank)
        starts_outside.append(~inside[own, start])
    rows = torch.argsort(torch.cat(order))
    return torch.cat(quads)[rows], torch.cat(starts_outside)[rows]


def _triangles(quads: Tensor, starts_outside: Tensor, gamma: Tensor) -> Tensor:
    """Quads in cell order -> wound and cut along the diagonal with the larger gammas: (2 Q, 3)."""
    outward, inward = quads[starts_outside], quads[~starts_outside]
    quads = torch.cat([outward[:, [0, 1, 3, 2]], inward[:, [2, 3, 1, 0]]])
    corner_gamma = gamma[quads]  # (Q, 4)
    split_02 = corner_gamma[:, 0] * corner_gamma[:, 2] > corner_gamma[:, 1] * corner_gamma[:, 3]
    by_02, by_13 = quads[:, [0, 1, 2, 0, 2, 3]], quads[:, [0, 1, 3, 3, 1, 2]]
    return torch.where(split_02[:, None], by_02, by_13).reshape(-1, 3)
