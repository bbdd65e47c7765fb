"""Turn any triangles into a mesh that can be simplified, unwrapped and baked.

The steps, in order: what cannot be used is dropped, equal positions are welded, floaters go by
their area, then duplicate faces and fins; neighbours are turned the same way round and outward;
edges and vertices where too many faces meet are taken apart; small holes are closed; parts that
nobody can see from outside are dropped. A mesh that needs none of it comes back unchanged.

N vertices, M faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.holes import fill_holes
from onelook.asset.manifold import separate
from onelook.asset.topology import (
    Edges,
    compact,
    face_areas,
    face_parts,
    find_edges,
    sheets,
)
from onelook.asset.winding import flip_faces, flips_to_agree, flips_to_face_outward
from onelook.errors import SurfaceError

Array = np.ndarray

SLIVER = 1e-12  # of the squared diagonal: faces with less area have no usable normal in float32


@dataclass(frozen=True)
class CleanMesh:
    """A mesh without non-manifold edges or vertices, whose neighbours agree in winding.

    vertices (N, 3) float32; faces (M, 3) int32, counter-clockwise seen from outside.
    is_closed: every edge has two faces. The counts say what was done: invalid_faces had an index
    out of range or a vertex that is not finite; degenerate_faces no area; floaters and hidden_parts
    are parts that were dropped; split_vertices were added to take non-manifold places apart;
    flipped_faces were turned round; filled_holes were closed and open_holes left as they are.
    """

    vertices: Array
    faces: Array
    is_closed: bool
    invalid_faces: int = 0
    degenerate_faces: int = 0
    duplicate_faces: int = 0
    fins: int = 0
    floaters: int = 0
    hidden_parts: int = 0
    flipped_faces: int = 0
    split_vertices: int = 0
    filled_holes: int = 0
    open_holes: int = 0


def clean(
    vertices: Array,
    faces: Array,
    *,
    floater_share: float = 0.01,
    hole_edges: int = 400,
    hole_share: float = 0.05,
    drop_hidden: bool = True,
    hidden_share: float = 0.01,
    device: str | None = None,
) -> CleanMesh:
    """Clean a mesh: vertices (N, 3) float, faces (M, 3) int, counter-clockwise where that is known.

    floater_share: parts with less than this share of the largest part's area are dropped.
    hole_edges, hole_share: holes with at most so many edges, and at most this share of the area of
    the sheet they are in, are closed. drop_hidden: drop parts of which less than hidden_share can
    be seen from outside. device: where rays are traced, "cpu" or "cuda:N"; default the GPU if any.
    Raises SurfaceError when nothing usable is left.
    """
    counts: dict[str, int] = {}
    vertices, faces = _usable(vertices, faces, counts)
    vertices, faces = _without_degenerate(vertices, weld(vertices, faces), counts)
    faces = _without_floaters(vertices, faces, floater_share, counts)
    faces = _without_duplicates(faces, counts)
    edges = find_edges(faces)
    faces, edges = _without_fins(faces, edges, counts)
    faces, edges = _turned(vertices, faces, edges, counts)
    separated = separate(vertices, faces, edges)
    counts["split_vertices"] = len(separated.vertices) - len(vertices)
    filled = fill_holes(
        separated.vertices, separated.faces, separated.origin, hole_edges, hole_share
    )
    counts["filled_holes"], counts["open_holes"] = filled.filled, filled.kept
    vertices, faces = filled.vertices, filled.faces
    if filled.filled:
        separated = separate(vertices, faces)
        vertices, faces = separated.vertices, separated.faces
    if drop_hidden:
        faces = _without_hidden(vertices, faces, hidden_share, device, counts)
    vertices, faces = compact(vertices, faces)
    return CleanMesh(
        vertices=np.ascontiguousarray(vertices),
        faces=np.ascontiguousarray(faces),
        is_closed=bool((find_edges(faces).uses == 2).all()),
        **counts,
    )


def _usable(vertices: Array, faces: Array, counts: dict[str, int]) -> tuple[Array, Array]:
    """The arrays with the right types, without faces that point nowhere."""
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise SurfaceError(f"vertices must have shape (N, 3), got {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise SurfaceError(f"faces must have shape (M, 3), got {faces.shape}")
    if not len(faces):
        raise SurfaceError("the surface has no faces")
    vertices = vertices.astype(np.float32, copy=False)
    in_range = ((faces >= 0) & (faces < len(vertices))).all(1)
    finite = np.isfinite(vertices).all(1)
    if in_range.all() and finite.all():
        return vertices, faces.astype(np.int32, copy=False)
    valid = in_range.copy()
    valid[in_range] = finite[faces[in_range]].all(1)
    if not valid.any():
        raise SurfaceError(
            f"none of the {len(faces)} faces can be used: every one has a vertex that does not"
            " exist or is not a finite number"
        )
    counts["invalid_faces"] = int(len(faces) - valid.sum())
    return np.where(finite[:, None], vertices, np.float32(0)), faces[valid].astype(np.int32)


def weld(vertices: Array, faces: Array) -> Array:
    """The faces with every vertex replaced by the first one at exactly the same position.

    The very same array where no position occurs twice.
    """
    bits = (vertices + np.float32(0)).view(np.uint32).astype(np.uint64)  # + 0 turns -0 into 0
    keys = bits[:, 0] * np.uint64(0x9E3779B97F4A7C15)  # mixed so that equal keys are rare
    for k in (1, 2):
        keys = (keys ^ (keys >> np.uint64(29)) ^ bits[:, k]) * np.uint64(0xBF58476D1CE4E5B9)
    ordered = np.sort(keys)
    if (ordered[1:] != ordered[:-1]).all():
        return faces
    _, index = np.unique(bits, axis=0, return_inverse=True)
    first = np.full(int(index.max()) + 1, len(vertices), np.int32)
    np.minimum.at(first, index.ravel(), np.arange(len(vertices), dtype=np.int32))
    return first[index.ravel()][faces]


def _without_degenerate(
    vertices: Array, faces: Array, counts: dict[str, int]
) -> tuple[Array, Array]:
    size = np.ptp(vertices[faces.ravel()], axis=0)
    area = face_areas(vertices, faces)
    distinct = (faces != np.roll(faces, 1, axis=1)).all(1)
    solid = distinct & (area > SLIVER * float(size @ size))
    if solid.all():
        return vertices, faces
    if not solid.any():
        raise SurfaceError(
            f"all {len(faces)} faces of the surface are degenerate: none has an area"
        )
    counts["degenerate_faces"] = int(len(faces) - solid.sum())
    return vertices, faces[solid]


def _without_floaters(
    vertices: Array, faces: Array, floater_share: float, counts: dict[str, int]
) -> Array:
    """Without the parts that are small beside the largest one."""
    number, part = face_parts(faces, len(vertices))
    if number == 1:
        return faces
    area = np.bincount(part, face_areas(vertices, faces))
    stays = area >= floater_share * area.max()
    counts["floaters"] = int(number - stays.sum())
    return faces if stays.all() else faces[stays[part]]


def _without_duplicates(faces: Array, counts: dict[str, int]) -> Array:
    """One face for every set of three vertices."""
    low, high = faces.min(1), faces.max(1)
    middle = faces.sum(1, dtype=np.int64) - low - high
    stride = int(high.max()) + 1
    keys = low.astype(np.int64) * stride + middle
    ordered = np.sort(keys)
    if (ordered[1:] != ordered[:-1]).all():
        return faces
    order = np.lexsort((np.arange(len(faces)), high, keys))
    repeats = np.zeros(len(faces), bool)
    repeats[order[1:]] = (np.diff(keys[order]) == 0) & (np.diff(high[order]) == 0)
    counts["duplicate_faces"] = int(repeats.sum())
    return faces[~repeats] if repeats.any() else faces


def _without_fins(faces: Array, edges: Edges, counts: dict[str, int]) -> tuple[Array, Edges]:
    """Without loose faces that stand on an edge which has two others."""
    fins = 0
    while (edges.uses > 2).any():
        uses = edges.uses[edges.of_half].reshape(-1, 3)
        fin = (uses > 2).any(1) & (uses == 1).any(1)
        if not fin.any() or fin.all():
            break
        fins += int(fin.sum())
        faces = faces[~fin]
        edges = find_edges(faces)
    counts["fins"] = fins
    return faces, edges


def _turned(
    vertices: Array, faces: Array, edges: Edges, counts: dict[str, int]
) -> tuple[Array, Edges]:
    """Neighbours turned to agree, then every sheet outward."""
    agree = flips_to_agree(faces, edges.paired())
    faces, edges = flip_faces(faces, edges, agree)
    count, sheet = sheets(edges.paired(), len(faces))
    outward = flips_to_face_outward(vertices, faces, sheet, count)
    counts["flipped_faces"] = int((agree ^ outward).sum())
    return flip_faces(faces, edges, outward)


def _without_hidden(
    vertices: Array, faces: Array, hidden_share: float, device: str | None, counts: dict[str, int]
) -> Array:
    """Without parts that hardly any ray from outside reaches."""
    number, part = face_parts(faces, len(vertices))
    if number == 1:
        return faces
    from onelook.asset.visibility import part_visibility

    seen = part_visibility(vertices, faces, part, number, device)
    stays = (seen.front >= hidden_share) | (seen.back >= hidden_share)
    if not stays.any():
        return faces
    counts["hidden_parts"] = int(number - stays.sum())
    return faces[stays[part]]
