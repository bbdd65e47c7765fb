"""Cut a mesh into connected parts that each look one way: candidates for charts.

M faces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.asset.part_kernels import Feature, average_normals, join_nearest_part
from onelook.asset.topology import components, face_areas, face_crosses, find_edges
from onelook.kernels import launch

Array = np.ndarray
NORMAL_WEIGHT = 1.0  # a radian of turning counts as much as the width of a full part
CONE_COSINE = 0.3  # a part's normals stay within about 70 degrees of their mean
_STRAY_SHARE = 50  # one face in so many may leave the cone
_SMOOTHING_ROUNDS = 100  # reaches about ten faces far, so that ridges do not shape the parts
_SETTLING_ROUNDS, _CENTRING_ROUNDS = 40, 5
_BORDER_COST = 0.04  # of an edge between parts, against squared distance in features
_STRAIGHTENING_ROUNDS = 6
_SMALL = 20  # pieces under a twentieth of a full part join a neighbour
_SPOT_RINGS, _MOST_SPOTS = 6, 0.25  # rings of faces around a bad one; their share of a part
_SPOT_FACES = 200  # smaller parts are halved, for their spots are spikes that must be opened


@dataclass(frozen=True)
class FaceGraph:
    """What cutting looks at.

    links (L, 2): pairs of faces that share an edge, alone and wound the same way round; each once.
    features (M, 6) float32: centres, and normals of the smoothed surface, in comparable units;
    normals (M, 3) float32: of the surface as it is.
    """

    links: Array
    features: Array
    normals: Array


def face_graph(vertices: Array, faces: Array, part_faces: int) -> FaceGraph:
    """vertices (N, 3) float, faces (M, 3) int; part_faces: faces of a full part."""
    pairs = find_edges(faces).paired()
    tails = faces.ravel()[pairs]
    links = pairs[tails[:, 0] != tails[:, 1]] // 3
    width = (float(face_areas(vertices, faces).mean(dtype=np.float64)) * part_faces) ** 0.5
    features = np.empty((len(faces), 6), np.float32)
    features[:, :3] = vertices[faces].mean(axis=1) / (width or 1.0)
    crosses = face_crosses(vertices, faces)
    features[:, 3:] = NORMAL_WEIGHT * _smooth_normals(crosses, links)
    return FaceGraph(links, features, _unit(crosses))


def find_parts(graph: FaceGraph, part_faces: int) -> Array:
    """Part of each face: -> (M,) int64, 0..C-1.

    Every part is connected across edges, has about `part_faces` faces or fewer, and its smoothed
    normals lie about in a cone. Borders between parts are short and straight.
    """
    label = np.empty(len(graph.features), np.int64)
    for number, part in enumerate(_halve_often(graph.features, part_faces)):
        label[part] = number
    label = _settle(label, graph)
    return _tidy(label, graph.links, np.full(len(label), part_faces // _SMALL))


def recut_parts(graph: FaceGraph, faces: Array, part: Array, bad: Array) -> tuple[Array, Array]:
    """Cut each of some parts: faces (F,), their part (F,) ascending, bad (F,) bool.

    Where few of a part's faces are bad, they and the faces around them become parts of their own;
    else the part is halved. Returns the new part (F,), 0..C-1, every old one cut into two or more
    connected pieces, and rest (F,) bool: what bad spots were cut out of.
    """
    place = np.full(len(graph.features), -1)
    place[faces] = np.arange(len(faces))
    links = place[graph.links]
    links = links[(links >= 0).all(axis=1)]
    links = links[part[links[:, 0]] == part[links[:, 1]]]
    sizes = np.maximum(np.bincount(part), 1)
    spots = _grown(bad, links)
    share = (np.bincount(part, spots) / sizes)[part]
    has_spots = (share > 0) & (share < _MOST_SPOTS) & (sizes[part] > _SPOT_FACES)
    halves = _halve_each(graph, faces, part, has_spots)
    tidied = _tidy(halves, links, np.where(has_spots, 0, sizes[part] // _SMALL))
    undone = np.bincount(tidied)[tidied] == sizes[part]  # tidying gave all back to one half
    label = np.where(undone | has_spots, halves, tidied + 2 * len(sizes))
    label = np.where(has_spots, 2 * part + spots, label)
    return connected_parts(label, links), has_spots & ~spots


def _grown(faces: Array, links: Array) -> Array:
    """Some faces and those within a few steps of them: (F,) bool."""
    for _ in range(_SPOT_RINGS):
        wider = faces.copy()
        for a, b in ((0, 1), (1, 0)):
            wider[links[faces[links[:, a]], b]] = True
        faces = wider
    return faces


def _halve_each(graph: FaceGraph, faces: Array, part: Array, skip: Array) -> Array:
    """Twice the part of each face (F,), plus one in the upper half of its part.

    Small parts are cut by their own normals rather than the smoothed ones, which opens spikes
    lengthwise.
    """
    label = 2 * part.astype(np.int64)
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    for first, last in zip(starts, np.append(starts[1:], len(part)), strict=True):
        if not skip[first]:
            inside = faces[first:last]
            features = graph.features[inside]
            if len(inside) <= _SPOT_FACES:
                features[:, :3] /= max(float(np.ptp(features[:, :3], axis=0).max()), 1e-9)
                features[:, 3:] = graph.normals[inside]
            label[first:last] += _halve(features)
    return label


def _tidy(label: Array, links: Array, least: Array) -> Array:
    """Straighten borders, give away pieces of under `least` (M,) faces; -> connected parts."""
    neighbours = _neighbours(links, len(label))
    for _ in range(_STRAIGHTENING_ROUNDS):
        label = _vote(label, neighbours)
    return connected_parts(_absorb_small(label, links, least), links)


def connected_parts(label: Array, links: Array) -> Array:
    """Tell apart the pieces of a label that no link joins: (M,) -> (M,), 0..C-1."""
    inside = links[label[links[:, 0]] == label[links[:, 1]]]
    return components(inside, len(label))[1].astype(np.int64)


def renumber(label: Array) -> Array:
    """The same labels as 0..C-1, in the same order."""
    return np.unique(label, return_inverse=True)[1].reshape(-1)


def _halve(features: Array) -> Array:
    """Split faces in the middle across their most spread direction: (M, 6) -> (M,) bool."""
    centred = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    # einsum and not @: BLAS may sum in another order when it has other threads
    covariance = np.einsum("mi,mj->ij", centred, centred)
    axis = np.linalg.eigh(covariance.astype(np.float64))[1][:, -1].astype(np.float32)
    along = np.einsum("mi,i->m", centred, axis)
    upper = along >= np.partition(along, len(along) // 2)[len(along) // 2]
    if upper.all():
        upper = np.arange(len(along)) >= len(along) // 2
    return upper


def _halve_often(features: Array, part_faces: int) -> list[Array]:
    """Halve all faces again and again, until each part is small enough and looks one way."""
    parts, todo = [], [np.arange(len(features))]
    while todo:
        part = todo.pop()
        inside = features[part]
        if len(part) <= part_faces and _looks_one_way(inside[:, 3:] / NORMAL_WEIGHT):
            parts.append(part)
            continue
        upper = _halve(inside)
        todo += [part[upper], part[~upper]]
    return parts


def _looks_one_way(normals: Array) -> bool:
    if len(normals) == 1:
        return True
    mean = normals.mean(axis=0, dtype=np.float64)
    cosines = np.einsum("mi,i->m", normals, mean / max(np.linalg.norm(mean), 1e-9))
    stray = len(normals) // _STRAY_SHARE
    return bool(np.partition(cosines, stray)[stray] > CONE_COSINE)


def _settle(label: Array, graph: FaceGraph) -> Array:
    """Let each face join the neighbouring part whose middle is nearest, as k-means does.

    Only labels of neighbours are looked at, so parts move face by face and stay in one piece; an
    edge between two parts has a cost, which keeps borders short.
    """
    count = int(label.max()) + 1
    neighbours = wp.array(_neighbours(graph.links, len(label)), dtype=wp.int32, device="cpu")
    features = wp.array(graph.features, dtype=Feature, device="cpu")
    now = wp.array(label, dtype=wp.int32, device="cpu")
    after = wp.empty_like(now)
    for turn in range(_SETTLING_ROUNDS):
        if turn % _CENTRING_ROUNDS == 0:
            label = now.numpy()
            sizes = np.maximum(np.bincount(label, minlength=count), 1)
            sums = [np.bincount(label, column, count) for column in graph.features.T]
            middles = wp.array(np.stack(sums, axis=1) / sizes[:, None], Feature, device="cpu")
        inputs = [neighbours, features, middles, _BORDER_COST, now, after]
        launch(join_nearest_part, len(label), inputs, "cpu")
        now, after = after, now
    return now.numpy().astype(np.int64)


def _neighbours(links: Array, count: int) -> Array:
    """The faces across each face's edges: (M, 3), the face itself where there is none.

    Faces with more neighbours than that (an edge of many faces is no link) do not occur.
    """
    ends = np.concatenate([links, links[:, ::-1]])
    order = np.argsort(ends[:, 0], kind="stable")
    face, other = ends[order].T
    first = np.searchsorted(face, np.arange(count))
    result = np.repeat(np.arange(count)[:, None], 3, axis=1)
    result[face, np.arange(len(face)) - first[face]] = other
    return result


def _unit(directions: Array) -> Array:
    """(M, 3) at unit length, zero where they have none."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    return directions / np.where(lengths > 0, lengths, 1)


def _smooth_normals(crosses: Array, links: Array) -> Array:
    """Unit normals after averaging with the neighbours a number of times: (M, 3) -> (M, 3)."""
    neighbours = wp.array(_neighbours(links, len(crosses)), dtype=wp.int32, device="cpu")
    crosses = crosses / (np.sqrt(np.square(crosses).sum(axis=1).mean()) or 1.0)
    now = wp.array(crosses, dtype=wp.vec3, device="cpu")
    after = wp.empty_like(now)
    for _ in range(min(_SMOOTHING_ROUNDS, math.isqrt(len(crosses)))):
        launch(average_normals, len(crosses), [neighbours, now, after], "cpu")
        now, after = after, now
    return _unit(now.numpy())


def _vote(label: Array, neighbours: Array) -> Array:
    """A face between two others of one part joins that part."""
    a, b, c = label[neighbours].T
    return np.where((a == b) | (a == c), a, np.where(b == c, b, label))


def _absorb_small(label: Array, links: Array, least: Array, rounds: int = 8) -> Array:
    """Give connected pieces under `least` (M,) faces to the piece they share most edges with."""
    for _ in range(rounds):
        piece = connected_parts(label, links)
        sizes = np.bincount(piece)
        is_small = np.zeros(len(sizes), bool)
        is_small[piece] = sizes[piece] < least
        ends = piece[links]
        ends = ends[ends[:, 0] != ends[:, 1]]
        ends = np.concatenate([ends, ends[:, ::-1]])
        source, target = ends[is_small[ends[:, 0]]].T
        pairs, shared = np.unique(source * len(sizes) + target, return_counts=True)
        source, target = pairs // len(sizes), pairs % len(sizes)
        grows = (sizes[target] > sizes[source]) | (
            (sizes[target] == sizes[source]) & (target < source)
        )
        source, target, shared = source[grows], target[grows], shared[grows]
        if not len(source):
            break
        order = np.lexsort((target, shared, source))  # the last of each source has most edges
        last = np.append(np.diff(source[order]) != 0, True)
        joined = np.arange(len(sizes))
        joined[source[order][last]] = target[order][last]
        label = joined[piece]
    return label
