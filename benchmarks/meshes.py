"""Meshes to measure with: a rough trefoil knot, and the same knot badly damaged.

Both are made from formulas and seeded numbers, so every machine gets the same bytes. The knot is a
closed tube around a trefoil, with ridges and noise, longest side 1: about as rough as what an
isosurface of a network's field gives. The damaged one has everything a cleaner must deal with: an
inner shell, floaters, holes, fins, duplicate and flipped faces.

N vertices, M faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

TUBE_RADIUS = 0.42  # in the units of the trefoil's formula, where its lobes never touch
SMALL_HOLES, LARGE_HOLES = 25, 5


@dataclass(frozen=True)
class DamagedKnot:
    """A knot with known faults.

    vertices (N, 3) float32, faces (M, 3) int32, a few of them flipped. `sound` is the outer shell
    as it was before holes were cut: what a perfect cleaner would come near to.
    """

    vertices: Array
    faces: Array
    sound: tuple[Array, Array]
    floaters: int
    holes: int
    fins: int
    inner_volume: float


def knot(faces: int, roughness: float = 1.0, radius: float = TUBE_RADIUS) -> tuple[Array, Array]:
    """A closed trefoil tube of about `faces` faces, outward winding, longest side about 1.

    roughness scales ridges and noise; 0 gives a smooth tube. Returns vertices (N, 3) float32 and
    faces (M, 3) int32; M is the nearest even grid to `faces`.
    """
    around = max(8, round((faces / 2 / 8.0) ** 0.5))  # cells about as long as wide
    along = max(24, round(faces / 2 / around))
    t = np.arange(along)[:, None] * (2 * np.pi / along)  # (along, 1)
    a = np.arange(around)[None, :] * (2 * np.pi / around)  # (1, around)
    centre, side, up = _trefoil_frames(t[:, 0])
    ridges = 0.05 * np.sin(12 * a + 9 * t) + 0.03 * np.sin(40 * t - 3 * a)
    rng = np.random.Generator(np.random.PCG64(7))
    grain = 0.02 * _waves(rng, t, a) + 0.0015 * rng.standard_normal((along, around))
    r = radius * (1 + roughness * (ridges + grain))  # (along, around)
    points = centre[:, None] + r[..., None] * (
        np.cos(a)[..., None] * side[:, None] + np.sin(a)[..., None] * up[:, None]
    )  # (along, around, 3)
    return (points.reshape(-1, 3) / 6.35).astype(np.float32), _torus_faces(along, around)


def damaged_knot(faces: int, seed: int = 1) -> DamagedKnot:
    """A knot of about `faces` faces with an inner shell, 40 floaters, 30 holes, 20 fins and flips.

    Half of the faces are the outer shell, half the inner one.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    outer = knot(faces // 2)
    inner = knot(faces // 2, radius=0.8 * TUBE_RADIUS)
    holed = outer[1][~_hole_mask(outer[1], len(outer[0]), rng)]
    parts = [(outer[0], holed), (inner[0], inner[1])]
    parts += [_floater(rng) for _ in range(40)]
    vertices, joined = _join(parts)
    vertices, joined = _add_fins(vertices, joined, len(holed), rng, count=20)
    copies = joined[rng.choice(len(holed), 10, replace=False)]
    copies[:5] = copies[:5, ::-1]
    joined = np.concatenate([joined, copies])
    joined = _shuffled_blocks(joined, rng)
    return DamagedKnot(
        vertices=vertices,
        faces=np.ascontiguousarray(joined),
        sound=outer,
        floaters=40,
        holes=SMALL_HOLES + LARGE_HOLES,
        fins=20,
        inner_volume=_volume(*inner),
    )


def scramble_winding(faces: Array, share: float = 0.1, seed: int = 2) -> Array:
    """Flip a random share of the faces, as a two-sided dual grid leaves them: (M, 3) -> (M, 3)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    flipped = rng.random(len(faces)) < share
    return np.ascontiguousarray(np.where(flipped[:, None], faces[:, ::-1], faces))


def _trefoil_frames(t: Array) -> tuple[Array, Array, Array]:
    """(along,) angles -> centre line and two normals across it, (along, 3) each; they close up."""
    centre = np.stack(
        [np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], -1
    )
    tangent = np.stack(
        [np.cos(t) + 4 * np.cos(2 * t), -np.sin(t) + 4 * np.sin(2 * t), -3 * np.cos(3 * t)], -1
    )
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return centre, side, np.cross(side, tangent)


def _waves(rng: np.random.Generator, t: Array, a: Array, count: int = 24) -> Array:
    """A sum of random waves that is periodic in both angles: (along, around)."""
    total = 0.0
    for _ in range(count):
        p, q = rng.integers(20, 160), rng.integers(1, 24)
        total = total + np.sin(p * t + q * a + rng.uniform(0, 2 * np.pi))
    return total / count**0.5


def _torus_faces(along: int, around: int) -> Array:
    i, j = np.meshgrid(np.arange(along), np.arange(around), indexing="ij")
    i1, j1 = (i + 1) % along, (j + 1) % around
    a, b, c, d = i * around + j, i1 * around + j, i1 * around + j1, i * around + j1
    quads = np.stack([a, b, c, a, c, d], -1)  # (along, around, 6)
    return np.ascontiguousarray(quads.reshape(-1, 3).astype(np.int32))


def _hole_mask(faces: Array, vertex_count: int, rng: np.random.Generator) -> Array:
    """Which faces to cut away: discs of faces around random vertices that do not touch.

    Raises ValueError where the mesh has no room for them.
    """
    mask = np.zeros(len(faces), bool)
    taken = np.zeros(vertex_count, bool)
    rings = [int(r) for r in rng.integers(1, 4, SMALL_HOLES)] + [7, 8, 9, 10, 12]
    for ring_count in rings:
        for _ in range(1000):
            disc = np.zeros(vertex_count, bool)
            disc[rng.integers(vertex_count)] = True
            for _ in range(ring_count - 1):
                disc[faces[disc[faces].any(1)]] = True
            cut = disc[faces].any(1)
            if not taken[faces[cut]].any():
                break
        else:
            raise ValueError(f"{len(faces)} faces are too few for {len(rings)} holes")
        mask |= cut
        taken[faces[cut]] = True
    return mask


def _floater(rng: np.random.Generator) -> tuple[Array, Array]:
    """A small closed octahedron, subdivided once, somewhere around the knot."""
    direction = rng.standard_normal(3)
    centre = direction / np.linalg.norm(direction) * rng.uniform(0.55, 0.7)
    axes = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    faces = np.array(
        [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    )
    return (centre + axes * rng.uniform(0.002, 0.008)).astype(np.float32), faces.astype(np.int32)


def _add_fins(
    vertices: Array, faces: Array, first: int, rng: np.random.Generator, count: int
) -> tuple[Array, Array]:
    """Stand `count` loose triangles on edges of the first `first` faces."""
    base = faces[rng.choice(first, count, replace=False)]
    a, b, c = (vertices[base[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    tips = (a + b) / 2 + 0.004 * normal
    fins = np.stack([base[:, 0], base[:, 1], len(vertices) + np.arange(count)], 1)
    return np.concatenate([vertices, tips]).astype(np.float32), np.concatenate(
        [faces, fins]
    ).astype(np.int32)


def _shuffled_blocks(faces: Array, rng: np.random.Generator, size: int = 64) -> Array:
    """Faces in blocks of neighbours, the blocks in random order: no step may rely on more."""
    blocks = rng.permutation(-(-len(faces) // size))
    order = (blocks[:, None] * size + np.arange(size)).ravel()
    return faces[order[order < len(faces)]]


def _join(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    offsets = np.cumsum([0] + [len(v) for v, _ in parts])
    vertices = np.concatenate([v for v, _ in parts])
    faces = np.concatenate([f + o for (_, f), o in zip(parts, offsets, strict=False)])
    return vertices, faces.astype(np.int32)


def _volume(vertices: Array, faces: Array) -> float:
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)
