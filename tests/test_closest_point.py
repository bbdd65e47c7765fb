"""The nearest point of a mesh, against a search over every face."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.knots import trefoil
from helpers.solids import grid_sheet, joined, moved, sphere

from onelook.closest_point import ClosestPoint
from onelook.vertex_colors import VertexColors

Array = np.ndarray


@pytest.fixture(scope="module")
def soup() -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    faces = np.stack([rng.choice(120, 3, replace=False) for _ in range(150)])
    return rng.standard_normal((120, 3)).astype(np.float32), faces.astype(np.int32)


def test_distance_and_point_match_a_search_over_every_face(soup):
    points = np.random.default_rng(6).standard_normal((400, 3)).astype(np.float32)
    hits = ClosestPoint(*soup, "cpu").query(points)
    expected = _distance_to_every_face(points, *soup).min(axis=1)
    np.testing.assert_allclose(hits.distance, expected, atol=2e-6)
    found = np.einsum("pk,pkc->pc", hits.barycentric, soup[0][soup[1][hits.face]])
    np.testing.assert_allclose(np.linalg.norm(found - points, axis=1), expected, atol=3e-6)
    assert hits.barycentric.min() > -1e-5
    np.testing.assert_allclose(hits.barycentric.sum(axis=1), 1, atol=1e-6)


def test_points_farther_than_the_limit_are_misses(soup):
    points = np.random.default_rng(7).standard_normal((400, 3)).astype(np.float32)
    hits = ClosestPoint(*soup, "cpu").query(points, max_distance=0.1)
    near = _distance_to_every_face(points, *soup).min(axis=1) < 0.1
    assert 20 < near.sum() < 380
    np.testing.assert_array_equal(hits.face >= 0, near)
    assert np.isinf(hits.distance[~near]).all()
    assert (hits.barycentric[~near] == 0).all()


def test_normals_keep_the_sides_of_a_thin_sheet_apart():
    top, bottom = grid_sheet(6), grid_sheet(6)
    bottom = (bottom[0], bottom[1][:, ::-1])
    slab = joined(moved(top, by=(0, 0, 0.005)), moved(bottom, by=(0, 0, -0.005)))
    rng = np.random.default_rng(8)
    points = np.column_stack([rng.uniform(-0.4, 0.4, (300, 2)), rng.uniform(-0.01, 0.01, 300)])
    up = np.tile(np.float32([0, 0, 1]), (300, 1))
    closest = ClosestPoint(*slab, "cpu")
    is_top = closest.query(points, 0.1, up).face < len(top[1])
    assert is_top.all()
    assert not (closest.query(points, 0.1, -up).face < len(top[1])).any()
    by_distance = closest.query(points, 0.1).face < len(top[1])
    np.testing.assert_array_equal(by_distance, points[:, 2] > 0)


def test_a_lone_side_is_taken_even_where_it_looks_away():
    hits = ClosestPoint(*grid_sheet(4), "cpu").query(
        np.float32([[0.1, 0.1, 0.05]]), 0.1, np.float32([[0, 0, -1]])
    )
    assert hits.face[0] >= 0
    assert hits.distance[0] == pytest.approx(0.05, abs=1e-6)


def test_same_bytes_whatever_the_number_of_pieces(monkeypatch):
    mesh = trefoil(80, 16)
    points = mesh[0] + np.float32(0.003)

    def ask():
        hits = ClosestPoint(*mesh, "cpu").query(points, 0.05, points)
        return hits.face.tobytes() + hits.barycentric.tobytes() + hits.distance.tobytes()

    expected = ask()
    monkeypatch.setattr("onelook.kernels.thread_count", lambda: 7)
    assert ask() == expected


def test_interpolates_attributes_at_hits(soup):
    vertices, faces = sphere(8)
    closest = ClosestPoint(vertices, faces, "cpu")
    centres = vertices[faces].mean(axis=1)
    hits = closest.query(np.concatenate([centres, [[9, 9, 9]]]), max_distance=1.0)
    found = closest.interpolate(np.column_stack([vertices, vertices[:, :1] * 2]), hits)
    np.testing.assert_allclose(found[:-1, :3], centres, atol=1e-6)
    np.testing.assert_allclose(found[:-1, 3], 2 * centres[:, 0], atol=1e-6)
    assert (found[-1] == 0).all()


def test_vertex_colors_answer_at_and_between_vertices():
    vertices, faces = sphere(8)
    colors = np.random.default_rng(9).random((len(vertices), 4)).astype(np.float32)
    roughness = colors[:, 0]
    appearance = VertexColors(vertices, faces, colors, metallic=0.25, roughness=roughness)
    normals = (vertices / np.linalg.norm(vertices, axis=1, keepdims=True)).astype(np.float32)
    at = appearance.sample(vertices, normals)
    np.testing.assert_allclose(at.base_color, colors[:, :3], atol=1e-5)
    np.testing.assert_allclose(at.alpha, colors[:, 3], atol=1e-5)
    np.testing.assert_allclose(at.metallic, 0.25, atol=1e-6)
    np.testing.assert_allclose(at.roughness, roughness, atol=1e-5)
    centres = vertices[faces].mean(axis=1)
    between = appearance.sample(centres, centres / np.linalg.norm(centres, axis=1, keepdims=True))
    np.testing.assert_allclose(between.base_color, colors[faces][..., :3].mean(axis=1), atol=1e-5)


def test_vertex_colors_refuse_colors_that_do_not_fit():
    vertices, faces = sphere(4)
    with pytest.raises(ValueError, match="one row per vertex"):
        VertexColors(vertices, faces, np.zeros((3, 3), np.float32))


@pytest.mark.gpu
def test_cuda_finds_the_same_points():
    warp = pytest.importorskip("warp")
    if not warp.is_cuda_available():
        pytest.skip("no CUDA device")
    mesh = trefoil(200, 32)
    points = mesh[0] + np.random.default_rng(3).normal(0, 0.004, mesh[0].shape).astype(np.float32)
    on_cpu, on_gpu = (ClosestPoint(*mesh, device).query(points) for device in ("cpu", "cuda:0"))
    np.testing.assert_allclose(on_gpu.distance, on_cpu.distance, atol=1e-6)
    again = ClosestPoint(*mesh, "cuda:0").query(points)
    np.testing.assert_array_equal(again.face, on_gpu.face)
    np.testing.assert_array_equal(again.barycentric, on_gpu.barycentric)


def _distance_to_every_face(points: Array, vertices: Array, faces: Array) -> Array:
    """(P, M): of each point to each triangle: to its plane where that is inside, else its edges."""
    p = points.astype(np.float64)[:, None]
    corners = vertices[faces].astype(np.float64)
    distance = np.full((len(points), len(faces)), np.inf)
    for k in range(3):
        a, b = corners[None, :, k], corners[None, :, (k + 1) % 3]
        along = b - a
        squared = np.maximum((along**2).sum(-1), 1e-30)
        t = np.clip(((p - a) * along).sum(-1) / squared, 0, 1)
        distance = np.minimum(distance, np.linalg.norm(a + t[..., None] * along - p, axis=-1))
    a = corners[:, 0]
    normal = np.cross(corners[:, 1] - a, corners[:, 2] - a)
    area = np.linalg.norm(normal, axis=1)
    unit = normal / np.maximum(area, 1e-30)[:, None]
    height = ((p - a) * unit).sum(-1)
    foot = p - height[..., None] * unit
    inside = area[None] > 1e-9
    for k in range(3):
        u, v = corners[None, :, k], corners[None, :, (k + 1) % 3]
        inside = inside & ((np.cross(v - u, foot - u) * unit).sum(-1) >= 0)
    return np.where(inside, np.minimum(distance, np.abs(height)), distance)
