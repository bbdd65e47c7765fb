"""Assets made from formulas: a sphere, a knot, a picture on a square."""

from __future__ import annotations

import numpy as np
import pytest

from onelook.asset.asset import Asset, Textures


def grid_faces(rows, columns):
    """Faces of a (rows + 1) x (columns + 1) grid of vertices, row by row."""
    row, column = np.mgrid[:rows, :columns]
    a = (row * (columns + 1) + column).ravel()
    b, c, d = a + 1, a + columns + 1, a + columns + 2
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)


def solid_texture(color, size=64):
    return np.full((size, size, 4), [*color, 255], np.uint8)


def make_sphere(texture=None, segments=48, **textures):
    """A unit-diameter sphere; u = 0.25 of its texture faces +Z, v = 0 is the top."""
    v, u = np.meshgrid(
        np.linspace(0, 1, segments // 2 + 1), np.linspace(0, 1, segments + 1), indexing="ij"
    )
    polar, azimuth = v * np.pi, (u - 0.25) * 2 * np.pi
    normals = np.stack(
        [np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1
    )
    normals = normals.reshape(-1, 3)
    faces = grid_faces(segments // 2, segments)
    normals[abs(normals) < 1e-12] = 0
    corners = normals[faces]
    flat = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    return Asset(
        vertices=(normals / 2).astype(np.float32),
        normals=normals.astype(np.float32),
        uvs=np.stack([u, v], -1).reshape(-1, 2).astype(np.float32),
        faces=faces[flat > 1e-9],
        textures=Textures(
            solid_texture((255, 255, 255)) if texture is None else texture, **textures
        ),
    )


def make_knot(along=500, around=100, texture_size=2048, **textures):
    """A trefoil knot of 2 * along * around faces with a striped, speckled texture."""
    t, s = np.meshgrid(
        np.linspace(0, 2 * np.pi, along + 1), np.linspace(0, 2 * np.pi, around + 1), indexing="ij"
    )

    def centre(t):
        return np.stack(
            [np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], -1
        )

    tangent = centre(t + 1e-4) - centre(t - 1e-4)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    side = np.cross(tangent, np.broadcast_to([0.0, 0.0, 1.0], tangent.shape))
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    normals = side * np.cos(s)[..., None] + np.cross(tangent, side) * np.sin(s)[..., None]
    vertices = (centre(t) + 0.75 * normals).reshape(-1, 3)
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) / (high - low).max()
    return Asset(
        vertices=vertices.astype(np.float32),
        normals=normals.reshape(-1, 3).astype(np.float32),
        uvs=np.stack([t, s], -1).reshape(-1, 2).astype(np.float32) / np.float32(2 * np.pi),
        faces=grid_faces(along, around)[:, ::-1].copy(),
        textures=Textures(knot_texture(texture_size), **textures),
    )


def knot_texture(size):
    v, u = np.mgrid[:size, :size].astype(np.float32) / size
    image = np.full((size, size, 4), 255, np.uint8)
    stripes = ((u * 24 + v * 2) % 1)[..., None] < 0.5
    warm, cool = np.array([214, 92, 46]), np.array([38, 92, 128])
    image[..., :3] = np.where(stripes, warm, cool)
    dots = np.hypot((u * 96) % 1 - 0.5, (v * 16) % 1 - 0.5) < 0.22
    image[dots, :3] = [240, 226, 190]
    return image


def make_square(texture, **textures):
    """A square of side 1 facing +Z that shows its texture upright."""
    corners = np.array([[-0.5, 0.5, 0], [0.5, 0.5, 0], [-0.5, -0.5, 0], [0.5, -0.5, 0]])
    return Asset(
        vertices=corners.astype(np.float32),
        normals=np.tile(np.array([0, 0, 1], np.float32), (4, 1)),
        uvs=np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32),
        faces=np.array([[0, 2, 1], [1, 2, 3]], np.int32),
        textures=Textures(texture, **textures),
        is_closed=False,
    )


@pytest.fixture(scope="session")
def sphere():
    """`make_sphere(texture=None, segments=48, **textures)`"""
    return make_sphere


@pytest.fixture(scope="session")
def square():
    """`make_square(texture, **textures)`"""
    return make_square


@pytest.fixture(scope="session")
def knot():
    """A knot of 10,000 faces."""
    return make_knot(125, 40, 512)
