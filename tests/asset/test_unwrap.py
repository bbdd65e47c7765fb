"""UV layouts: every claim is checked with code that shares nothing with the unwrapper."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.knots import trefoil
from helpers.solids import cube, grid_sheet, joined, moved, sphere, volume
from hypothesis import given, settings
from hypothesis import strategies as st

from onelook.asset.unwrap import Unwrapped, unwrap
from onelook.errors import SurfaceError

Array = np.ndarray
MESHES = {
    "knot": (trefoil(240, 40), 512),
    "smooth knot": (trefoil(240, 40, roughness=0.0), 512),
    "sphere": (sphere(24), 256),
    "cube": (cube(), 256),
    "open sheet": (grid_sheet(40), 256),
    "two parts": (joined(sphere(12), moved(cube(), 0.3, (1, 0, 0))), 256),
}


@pytest.fixture(scope="module", params=MESHES)
def case(request) -> tuple[Array, Array, int, Unwrapped]:
    (vertices, faces), size = MESHES[request.param]
    return vertices, faces, size, unwrap(vertices, faces, size)


def test_knot_faces_outward():
    assert volume(*trefoil(240, 40)) > 0


def test_faces_keep_their_order_and_winding(case):
    _, faces, _, result = case
    np.testing.assert_array_equal(result.vertices_index[result.faces], faces)
    assert result.faces.dtype == result.vertices_index.dtype == np.int32
    assert result.uvs.dtype == np.float32
    assert np.array_equal(np.unique(result.faces), np.arange(len(result.uvs)))


def test_no_texel_belongs_to_two_faces(case):
    _, _, size, result = case
    for finer in (1, 3):  # a finer grid also catches overlaps that miss the texel centres
        assert _centres_inside(result, finer * size).max() == 1


def test_padding_lies_between_any_two_charts(case):
    _, _, size, result = case
    assert result.padding == 2
    chart_map = np.full((size, size), -1)
    touched = _points_on_faces(result)
    column, row = np.minimum((touched.uv * size).astype(int), size - 1).T
    chart_map[row, column] = touched.chart
    assert (chart_map[row, column] == touched.chart).all()  # no texel touched by two charts
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            other = np.roll(chart_map, (dy, dx), axis=(0, 1))[2:-2, 2:-2]
            here = chart_map[2:-2, 2:-2]
            assert ((other == here) | (other < 0) | (here < 0)).all()


def test_every_chart_has_the_same_texel_density(case):
    vertices, faces, _, result = case
    count = result.chart.max() + 1
    surface = np.bincount(result.chart, _areas(vertices, faces), count)
    density = np.bincount(result.chart, _uv_areas(result), count) / surface
    np.testing.assert_allclose(density, density.mean(), rtol=2e-3)


def test_stretch_is_low_and_texture_is_used(case, request):
    vertices, faces, _, result = case
    assert _stretch(vertices, faces, result) < 1.03
    scale = np.sqrt(_uv_areas(result) / _areas(vertices, faces))
    low, high = np.percentile(scale / np.median(scale), [1, 99])
    assert low > 0.75 and high < 1.3
    assert result.coverage == pytest.approx(_uv_areas(result).sum(), rel=1e-5)
    assert result.coverage > 0.5


def test_no_chart_is_mirrored(case):
    _, _, _, result = case
    assert (_uv_areas(result, signed=True) <= 0).all()  # v points down


@pytest.mark.parametrize("seed", [0, 1])
def test_spikes_do_not_overlap_either(seed):
    vertices, faces = sphere(40)
    noise = np.random.default_rng(seed).normal(size=(len(vertices), 1))
    result = unwrap((vertices * (1 + 0.06 * noise)).astype(np.float32), faces, 512)
    assert _centres_inside(result, 2048).max() == 1
    assert result.coverage > 0.35


def test_long_things_are_cut_to_fill_the_square():
    vertices, faces = grid_sheet(40)
    ribbon = (vertices * (1, 100, 1)).astype(np.float32)
    result = unwrap(ribbon, faces, 256)
    assert result.coverage > 0.5
    assert _centres_inside(result, 1024).max() == 1


def test_a_smooth_body_needs_few_charts():
    vertices, faces = sphere(48)
    assert unwrap(vertices, faces, 512).chart.max() < 40


def test_too_small_a_texture_gives_up_padding_first():
    vertices, faces = trefoil(240, 40)
    result = unwrap(vertices, faces, 64)
    assert result.padding < 2
    assert _centres_inside(result, 64).max() == 1


def test_more_charts_than_texels_still_have_uvs_of_their_own():
    crumbs = joined(*(moved(cube(), 0.01, (x, y, 0)) for x in range(20) for y in range(20)))
    result = unwrap(*crumbs, 16)
    assert result.uvs.min() >= 0 and result.uvs.max() <= 1
    assert _centres_inside(result, 2048).max() == 1


def test_faces_without_area_do_no_harm():
    vertices, faces = sphere(12)
    flat = np.array([[0, 1, 1], [2, 2, 2], [0, len(vertices), 1]], np.int32)
    vertices = np.concatenate([vertices, (vertices[:1] + vertices[1:2]) / 2])
    result = unwrap(vertices, np.concatenate([faces, flat]), 256)
    assert np.isfinite(result.uvs).all()
    assert _centres_inside(result, 256).max() == 1
    assert result.coverage > 0.5


def test_scale_of_the_mesh_does_not_matter():
    vertices, faces = trefoil(120, 20)
    small = unwrap(vertices * np.float32(2.0**-10), faces, 256)
    assert small.coverage == pytest.approx(unwrap(vertices, faces, 256).coverage, abs=0.02)


def test_refuses_nothing_and_no_texture():
    with pytest.raises(SurfaceError, match="no faces left"):
        unwrap(np.zeros((3, 3), np.float32), np.zeros((0, 3), np.int32), 64)
    with pytest.raises(ValueError, match="at least 1"):
        unwrap(*cube(), 0)


_HASH = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.path.insert(0, sys.argv[1])
from test_unwrap import digest
print(digest())
"""


def digest() -> str:
    result = unwrap(*trefoil(120, 20), 256)
    parts = (result.vertices_index, result.faces, result.uvs)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_same_bytes_again_and_in_another_process_with_one_thread():
    here = os.path.dirname(__file__)
    path = os.pathsep.join([os.path.dirname(here), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", _HASH, here]
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert digest() == digest() == run.stdout.strip()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), size=st.sampled_from([1, 8, 64]))
def test_any_triangles_get_uvs(seed, count, size):
    rng = np.random.default_rng(seed)
    vertices = rng.standard_normal((rng.integers(3, 30), 3)).astype(np.float32)
    faces = rng.integers(0, len(vertices), (count, 3)).astype(np.int32)
    result = unwrap(vertices, faces, size)
    np.testing.assert_array_equal(result.vertices_index[result.faces], faces)
    assert result.uvs.min() >= 0 and result.uvs.max() <= 1
    assert _centres_inside(result, 512).max(initial=0) <= 1


def _centres_inside(result: Unwrapped, size: int) -> Array:
    """How many faces strictly contain each texel centre, counted one bounding box at a time."""
    corners = result.uvs[result.faces].astype(np.float64) * size
    low = np.maximum(np.ceil(corners.min(axis=1) - 0.5), 0).astype(int)
    high = np.minimum(np.floor(corners.max(axis=1) - 0.5), size - 1).astype(int) + 1
    extent = np.maximum(high - low, 0)
    boxes = extent.prod(axis=1)
    face = np.repeat(np.arange(len(corners)), boxes)
    offset = np.arange(boxes.sum()) - np.repeat(np.cumsum(boxes) - boxes, boxes)
    column = low[face, 0] + offset % np.maximum(extent[face, 0], 1)
    row = low[face, 1] + offset // np.maximum(extent[face, 0], 1)
    points = np.stack([column, row], axis=1) + 0.5
    sides = []
    for k in range(3):
        a, b = corners[face, k], corners[face, (k + 1) % 3]
        along = b - a
        side = along[:, 0] * (points - a)[:, 1] - along[:, 1] * (points - a)[:, 0]
        sides.append(side / np.maximum(np.linalg.norm(along, axis=1), 1e-12))  # in texels
    sides = np.stack(sides)
    inside = (sides > 1e-3).all(axis=0) | (sides < -1e-3).all(axis=0)
    return np.bincount(row[inside] * size + column[inside], minlength=size**2).reshape(size, size)


class _points_on_faces:
    """Points all over every face, corners included, and the chart of each."""

    def __init__(self, result: Unwrapped, steps: int = 12):
        i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1))
        i, j = i[i + j <= steps], j[i + j <= steps]
        weights = np.stack([i, j, steps - i - j], axis=1) / steps
        inner = 0.999 * weights + 0.001 / 3  # a border on the line between texels touches neither
        self.uv = np.einsum("wk,mkc->mwc", inner, result.uvs[result.faces].astype(float))
        self.uv = self.uv.reshape(-1, 2)
        self.chart = np.repeat(result.chart, len(inner))


def _areas(vertices: Array, faces: Array) -> Array:
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def _uv_areas(result: Unwrapped, signed: bool = False) -> Array:
    a, b, c = (result.uvs[result.faces[:, k]].astype(np.float64) for k in range(3))
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    return area if signed else np.abs(area)


def _stretch(vertices: Array, faces: Array, result: Unwrapped) -> float:
    """L2 texture stretch (Sander et al., "Texture Mapping Progressive Meshes", 2001), 1 at best."""
    corners = vertices[faces].astype(np.float64)
    plane = result.uvs[result.faces].astype(np.float64)
    edges = (corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)  # (M, 3, 2)
    plane_edges = (plane[:, 1:] - plane[:, :1]).transpose(0, 2, 1)  # (M, 2, 2)
    jacobian = edges @ np.linalg.inv(plane_edges)
    singular = np.linalg.svd(jacobian, compute_uv=False)
    area = _areas(vertices, faces)
    squared = (area * (singular**2).sum(axis=1) / 2).sum() / area.sum()
    return float(np.sqrt(squared * _uv_areas(result).sum() / area.sum()))
