"""Small meshes with known properties, and assets made of them."""

from __future__ import annotations

import numpy as np

from onelook.asset.asset import Asset, Textures

Array = np.ndarray


def cube() -> tuple[Array, Array]:
    """8 vertices and 12 outward faces; side 1, volume 1, centred."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return corners - np.float32(0.5), np.array(faces, np.int32)


def sphere(rings: int = 16, radius: float = 0.5) -> tuple[Array, Array]:
    """A closed latitude-longitude sphere of 4 * rings * (rings - 1) outward faces."""
    columns = 2 * rings
    theta = np.pi * np.arange(1, rings) / rings
    phi = 2 * np.pi * np.arange(columns) / columns
    sines, cosines = np.sin(theta)[:, None], np.cos(theta)[:, None]
    grid = np.stack(
        [sines * np.sin(phi), cosines * np.ones(columns), sines * np.cos(phi)], -1
    ).reshape(-1, 3)
    vertices = np.concatenate([grid, [[0, 1, 0], [0, -1, 0]]]) * radius
    i, j = np.meshgrid(np.arange(rings - 2), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    band = np.stack([a, a + columns, b + columns, a, b + columns, b], -1).reshape(-1, 3)
    j = np.arange(columns)
    top = np.stack([np.full(columns, len(grid)), j, (j + 1) % columns], 1)
    last = (rings - 2) * columns
    bottom = np.stack([np.full(columns, len(grid) + 1), last + (j + 1) % columns, last + j], 1)
    return vertices.astype(np.float32), np.concatenate([band, top, bottom]).astype(np.int32)


def grid_sheet(cells: int, size: float = 1.0) -> tuple[Array, Array]:
    """An open square of 2 * cells^2 faces in the XY plane, facing +Z."""
    steps = np.linspace(-size / 2, size / 2, cells + 1)
    x, y = np.meshgrid(steps, steps, indexing="xy")
    vertices = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3).astype(np.float32)
    i, j = np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij")
    a = i * (cells + 1) + j
    c = a + cells + 1
    faces = np.stack([a, a + 1, c + 1, a, c + 1, c], -1).reshape(-1, 3)
    return vertices, faces.astype(np.int32)


def moved(mesh: tuple[Array, Array], scale: float = 1.0, by: tuple = (0, 0, 0)):
    """The mesh scaled about the origin, then moved."""
    return (mesh[0] * scale + np.array(by)).astype(np.float32), mesh[1]


def joined(*meshes: tuple[Array, Array]) -> tuple[Array, Array]:
    """All meshes in one pair of arrays."""
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in meshes])
    faces = [f + offset for (_, f), offset in zip(meshes, offsets, strict=False)]
    return np.concatenate([v for v, _ in meshes]), np.concatenate(faces).astype(np.int32)


def volume(vertices: Array, faces: Array) -> float:
    """Signed volume; positive where faces are counter-clockwise seen from outside."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def edge_uses(faces: Array) -> Array:
    """How many faces each edge has, by vertex index."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return np.unique(edges, axis=0, return_counts=True)[1]


def repeated_directed_edges(faces: Array) -> int:
    """How many directed edges occur more than once: zero where all neighbours agree."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    return len(directed) - len(np.unique(directed, axis=0))


def textured_sphere(rings: int = 16, texture_size: int = 64, **changes) -> Asset:
    """A closed sphere, UV-mapped with a seam, with a smooth colourful texture."""
    columns = 2 * rings
    i, j = np.meshgrid(np.arange(rings + 1), np.arange(columns + 1), indexing="ij")
    theta, phi = np.pi * i / rings, 2 * np.pi * (j % columns) / columns
    normals = np.stack(
        [np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], -1
    )
    normals[0], normals[-1] = (0, 1, 0), (0, -1, 0)
    uvs = np.stack([j / columns, i / rings], -1).reshape(-1, 2)
    a = (i * (columns + 1) + j)[:-1, :-1]
    b, c, d = a + 1, a + columns + 2, a + columns + 1
    lower = np.stack([a, d, c], -1)[:-1].reshape(-1, 3)  # the last row would collapse at the pole
    upper = np.stack([a, c, b], -1)[1:].reshape(-1, 3)
    ramp = np.linspace(0, 255, texture_size).astype(np.uint8)
    rows, cols = np.meshgrid(ramp, ramp, indexing="ij")
    base_color = np.stack([rows, cols, 255 - rows // 2, np.full_like(rows, 255)], -1)
    fields = {
        "vertices": (normals.reshape(-1, 3) / 2).astype(np.float32),
        "normals": normals.reshape(-1, 3).astype(np.float32),
        "uvs": uvs.astype(np.float32),
        "faces": np.concatenate([lower, upper]).astype(np.int32),
        "textures": Textures(base_color),
    }
    return Asset(**(fields | changes))
