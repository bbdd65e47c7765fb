"""Turn any triangles into a mesh that can be simplified, unwrapped and baked.

The steps, in order: what cannot be used is dropped, equal positions are welded, floaters go by
their area, then duplicate faces and fins; neighbours are turned the same way round and outward;
edges and vertices where too many faces meet are taken apart; small holes are closed; parts that
nobody can see from outside are dropped. A mesh that needs none of it comes back unchanged.

N vertices, M faces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onelook.asset.holes import fill_holes
from onelook.asset.junctions import settle_junctions
from onelook.asset.manifold import Separated, separate, spread_coincident
from onelook.asset.slivers import remove_slivers
from onelook.asset.topology import (
    Edges,
    compact,
    edges_of_rest,
    face_areas,
    face_parts,
    find_edges,
    first_at_position,
    sheets,
    uses_distinct,
)
from onelook.asset.winding import (
    flip_faces,
    flips_to_agree,
    judge_sides,
)
from onelook.errors import SurfaceError
from onelook.time_cap import require_time

Array = np.ndarray

MOST_COORDINATE = 1e30  # beyond, even a length overflows float32
FLAP_SHARE = 1e-4  # of the largest sheet's area: smaller open ones, once taken apart, are debris
MOST_PARTS = 10_000  # of a triangle soup with more, nothing is judged by view
MOSTLY = 1.5  # times more of its back than of its front must be seen for a thin sheet to be turned


@dataclass(frozen=True)
class CleanMesh:
    """A mesh without non-manifold edges or vertices, whose neighbours agree in winding.

    vertices (N, 3) float32; faces (M, 3) int32, counter-clockwise seen from outside.
    is_closed: every edge has two faces. The counts say what was done: invalid_faces had an index
    out of range or a vertex that is no usable number; degenerate_faces no area; fins stood
    loosely on the surface; floaters and
    hidden_parts are parts that were dropped; split_vertices were added to take non-manifold places
    apart; flipped_faces were turned round; filled_holes were closed and open_holes left as they
    are.
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
    scale = _scale(vertices, faces)
    vertices = vertices if scale == 1 else vertices * scale
    faces = _without_degenerate(vertices, _welded(vertices, faces), counts)
    faces = _without_floaters(vertices, faces, floater_share, counts)
    faces = _without_duplicates(faces, counts)
    faces, edges = _without_fins(faces, counts)
    require_time()
    least_seen = hidden_share if drop_hidden else 0.0
    faces, edges = _agreeing(vertices, faces, edges, least_seen, device, counts)
    mesh = separate(vertices, faces, edges)
    counts["split_vertices"] = len(mesh.vertices) - len(vertices)
    mesh = _outward_without_flaps(mesh, min(FLAP_SHARE, floater_share), counts)
    require_time()
    mesh = _without_holes(mesh, hole_edges, hole_share, counts)
    mesh = _without_slivers(mesh, counts)
    require_time()
    mesh = _judged_by_view(mesh, drop_hidden, hidden_share, device, counts)
    vertices, faces = compact(mesh.vertices, mesh.faces)
    vertices = spread_coincident(vertices, faces)
    vertices = vertices if scale == 1 else vertices / scale
    return CleanMesh(
        vertices=np.ascontiguousarray(vertices),
        faces=np.ascontiguousarray(faces),
        is_closed=bool((mesh.edges.uses == 2).all()),
        **counts,
    )


def clean_roughly(vertices: Array, faces: Array, *, floater_share: float = 0.01) -> CleanMesh:
    """Only what the next steps cannot do without, and floaters; quick at any size.

    Winding stays as it is, holes stay open, and edges may have more than two faces. Raises
    SurfaceError when nothing usable is left.
    """
    counts: dict[str, int] = {}
    vertices, faces = _usable(vertices, faces, counts)
    faces = _without_degenerate(vertices, _welded(vertices, faces), counts)
    faces = _without_floaters(vertices, faces, floater_share, counts)
    faces = _without_duplicates(faces, counts)
    faces = faces[face_areas(vertices, faces) > 0]
    vertices, faces = compact(vertices, faces)
    return CleanMesh(vertices, faces, bool((find_edges(faces).uses == 2).all()), **counts)


def _usable(vertices: Array, faces: Array, counts: dict[str, int]) -> tuple[Array, Array]:
    """The arrays with the right types, without faces that point nowhere."""
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise SurfaceError(f"vertices must have shape (N, 3), got {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise SurfaceError(f"faces must have shape (M, 3), got {faces.shape}")
    if not len(faces):
        raise SurfaceError("the surface has no faces")
    vertices = vertices.astype(np.float32, copy=False)
    finite = np.abs(vertices) < MOST_COORDINATE  # false for NaN, too
    if faces.min() >= 0 and faces.max() < len(vertices) and finite.all():
        return vertices, faces.astype(np.int32, copy=False)
    in_range = ((faces >= 0) & (faces < len(vertices))).all(1)
    finite = finite.all(1)
    valid = in_range.copy()
    valid[in_range] = finite[faces[in_range]].all(1)
    if not valid.any():
        raise SurfaceError(
            f"none of the {len(faces)} faces can be used: every one has a vertex that does not"
            " exist or is not a finite number"
        )
    counts["invalid_faces"] = int(len(faces) - valid.sum())
    return np.where(finite[:, None], vertices, np.float32(0)), faces[valid].astype(np.int32)


def _scale(vertices: Array, faces: Array) -> np.float32:
    """A power of two that brings a tiny or huge mesh near size one; 1 for any other."""
    corners = vertices if len(vertices) < 4 * len(faces) else vertices[faces.ravel()]
    size = float((corners.max(0).astype(np.float64) - corners.min(0)).max())
    if not size or 1e-3 < size < 1e3:
        return np.float32(1)
    return np.float32(2.0 ** -round(np.log2(size)))


def _welded(vertices: Array, faces: Array) -> Array:
    """The faces with every vertex replaced by the first one at exactly the same position."""
    first = first_at_position(vertices)
    return faces if (first == np.arange(len(vertices))).all() else first[faces]


def _without_degenerate(vertices: Array, faces: Array, counts: dict[str, int]) -> Array:
    """Without faces that use a vertex twice: they leave no gap, unlike others without area."""
    distinct = uses_distinct(faces)
    if not (face_areas(vertices, faces) > 0).any():
        raise _no_area(len(faces))
    counts["degenerate_faces"] = int(len(faces) - distinct.sum())
    return faces if distinct.all() else faces[distinct]


def _no_area(face_count: int) -> SurfaceError:
    return SurfaceError(
        f"none of the {face_count} faces of the surface has an area, so there is nothing to"
        " texture; another picture or model may give a surface"
    )


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
    a, b, c = faces[:, 0], faces[:, 1], faces[:, 2]
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    middle = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    keys = low.astype(np.int64) * (int(high.max()) + 1) + middle
    ordered = np.sort(keys)
    if (ordered[1:] != ordered[:-1]).all():
        return faces
    order = np.lexsort((np.arange(len(faces)), high, keys))
    repeats = np.zeros(len(faces), bool)
    repeats[order[1:]] = (np.diff(keys[order]) == 0) & (np.diff(high[order]) == 0)
    counts["duplicate_faces"] = int(repeats.sum())
    return faces[~repeats] if repeats.any() else faces


def _without_fins(faces: Array, counts: dict[str, int]) -> tuple[Array, Edges]:
    """Without single faces that stand on an edge of two others; and the edges of the rest."""
    before = len(faces)
    edges = find_edges(faces)
    while len(crowded := edges.crowded()):
        require_time()
        face = np.unique(crowded // 3)
        uses = edges.uses[edges.of_half.reshape(-1, 3)[face]]
        fins = face[(uses != 2).all(1) & (uses == 1).any(1)]
        if not len(fins) or len(fins) == len(faces):
            break
        stays = np.ones(len(faces), bool)
        stays[fins] = False
        faces, edges = faces[stays], edges_of_rest(edges, stays)
    counts["fins"] = before - len(faces)
    return faces, edges


def _agreeing(
    vertices: Array,
    faces: Array,
    edges: Edges,
    hidden_share: float,
    device: str | None,
    counts: dict[str, int],
) -> tuple[Array, Edges]:
    """Neighbours turned to agree, also where several sheets meet at an edge; of those, none that
    is hidden."""
    flip = flips_to_agree(faces, edges.paired())
    faces, edges = flip_faces(faces, edges, flip)
    counts["flipped_faces"] = int(flip.sum())
    if (edges.uses > 2).any():
        settled = settle_junctions(vertices, faces, edges, hidden_share, device)
        faces, edges = settled.faces, settled.edges
        counts["flipped_faces"] += settled.flipped_faces
        counts["hidden_parts"] = settled.hidden_sheets
    return faces, edges


def _outward_without_flaps(mesh: Separated, flap_share: float, counts: dict[str, int]) -> Separated:
    """Every sheet turned outward, as far as its volume tells; open sheets too small are dropped.

    Such flaps are what is left of torn places once they are taken apart.
    """
    count, sheet = sheets(mesh.edges.paired(), len(mesh.faces))
    is_open = _open_sheets(mesh, sheet, count)
    sides = judge_sides(mesh.vertices, mesh.faces, sheet, count, is_open)
    mesh = _with_flipped(mesh, sides.is_inside_out[sheet], counts)
    if count == 1 or not is_open.any():
        return mesh
    area = np.bincount(sheet, face_areas(mesh.vertices, mesh.faces), count)
    stays = (~is_open | (area >= flap_share * area.max()))[sheet]
    if stays.all():
        return mesh
    counts["fins"] += int((~stays).sum())
    return replace(mesh, faces=mesh.faces[stays], edges=edges_of_rest(mesh.edges, stays))


def _open_sheets(mesh: Separated, sheet: Array, count: int) -> Array:
    """(count,) bool: sheets with a border."""
    is_open = np.zeros(count, bool)
    is_open[sheet[mesh.edges.boundary() // 3]] = True
    return is_open


def _with_flipped(mesh: Separated, flip: Array, counts: dict[str, int]) -> Separated:
    counts["flipped_faces"] += int(flip.sum())
    faces, edges = flip_faces(mesh.faces, mesh.edges, flip)
    return replace(mesh, faces=faces, edges=edges)


def _without_holes(
    mesh: Separated, hole_edges: int, hole_share: float, counts: dict[str, int]
) -> Separated:
    filled = fill_holes(mesh, hole_edges, hole_share)
    counts["filled_holes"], counts["open_holes"] = filled.filled, filled.kept
    return separate(filled.vertices, filled.faces) if filled.filled else mesh


def _without_slivers(mesh: Separated, counts: dict[str, int]) -> Separated:
    vertices, faces = remove_slivers(mesh.vertices, mesh.faces)
    if faces is mesh.faces:
        return mesh
    counts["degenerate_faces"] += len(mesh.faces) - len(faces)
    if not len(faces):
        raise _no_area(len(mesh.faces))
    return separate(vertices, faces)


def _judged_by_view(
    mesh: Separated,
    drop_hidden: bool,
    hidden_share: float,
    device: str | None,
    counts: dict[str, int],
) -> Separated:
    """Without parts that hardly any ray from outside reaches; thin open ones turned to be seen."""
    number, part = sheets(mesh.edges.paired(), len(mesh.faces))
    is_open = _open_sheets(mesh, part, number)
    undecided = is_open
    if is_open.any():
        undecided = judge_sides(mesh.vertices, mesh.faces, part, number, is_open).is_undecided
    if number > MOST_PARTS or not (drop_hidden and number > 1 or undecided.any()):
        return mesh
    from onelook.asset.visibility import part_visibility

    seen = part_visibility(mesh.vertices, mesh.faces, part, number, device)
    mostly_back = undecided & (seen.back > MOSTLY * seen.front)
    mesh = _with_flipped(mesh, mostly_back[part], counts)
    stays = (seen.front >= hidden_share) | (seen.back >= hidden_share)
    if not drop_hidden or stays.all() or not stays.any():
        return mesh
    counts["hidden_parts"] = counts.get("hidden_parts", 0) + int(number - stays.sum())
    stays = stays[part]
    return replace(mesh, faces=mesh.faces[stays], edges=edges_of_rest(mesh.edges, stays))
