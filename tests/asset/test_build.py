"""Surface to Asset, whole."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from helpers.geometry import edge_uses
from helpers.gltf_check import check_glb
from helpers.knots import trefoil
from helpers.solids import grid_sheet, joined, moved, sphere
from hypothesis import given, settings
from hypothesis import strategies as st

from onelook.asset.asset import Asset
from onelook.asset.build import build_asset, choose_alpha_mode
from onelook.asset.fallback import cluster, unwrap_faces
from onelook.asset.gltf import write_glb
from onelook.asset.normals import vertex_normals
from onelook.asset.topology import weld_index
from onelook.closest_point import ClosestPoint
from onelook.errors import SurfaceError
from onelook.report import Report
from onelook.surface import Material, Surface
from onelook.time_cap import TimeCapReached, require_time, time_cap
from onelook.vertex_colors import VertexColors

Array = np.ndarray


class Heights:
    """Grey by height; see-through above `clear_above`."""

    def __init__(self, clear_above: float = 9.0, alpha: float = 0.0):
        self.clear_above, self.alpha = clear_above, alpha

    def sample(self, points: Array, normals: Array) -> Material:
        material = Material.matte(np.repeat(points[:, 1:2] * 0.5 + 0.5, 3, axis=1))
        material.alpha[points[:, 1] > self.clear_above] = self.alpha
        return material


def _build(mesh: tuple[Array, Array], appearance=None, faces: int = 3000, **options):
    report = Report()
    surface = Surface(*mesh, appearance or Heights())
    options = {"texture_size": 256} | options
    return build_asset(surface, decimation_target=faces, report=report, **options), report


@pytest.fixture(scope="module")
def built() -> tuple[Asset, Report]:
    crumb = moved(sphere(4), 0.01, (0.5, 0.5, 0.5))
    return _build(joined(trefoil(160, 32), crumb))


def test_asset_is_closed_reduced_and_uv_mapped(built):
    asset, report = built
    assert 2900 <= len(asset.faces) <= 3000
    assert report.figures["components"] == 1  # the crumb is gone
    assert asset.is_closed and report.figures["watertight"]
    position, _ = weld_index(asset.vertices)
    assert (edge_uses(position[asset.faces]) == 2).all()
    assert asset.uvs.min() >= 0 and asset.uvs.max() <= 1
    assert len(asset.vertices) == len(asset.normals) == len(asset.uvs)
    assert asset.faces.max() == len(asset.vertices) - 1
    for array in (asset.vertices, asset.normals, asset.uvs):
        assert array.dtype == np.float32
    assert asset.faces.dtype == np.int32


def test_steps_and_figures_are_told(built):
    asset, report = built
    assert list(report.seconds) == ["clean", "simplify", "unwrap", "bake"]
    figures = report.figures
    assert figures["faces"] == len(asset.faces)
    assert figures["vertices"] == len(asset.vertices)
    assert figures["texture_size"] == len(asset.textures.base_color) == 256
    assert figures["uv_coverage"] > 0.4
    assert figures["alpha_mode"] == asset.alpha_mode == "OPAQUE"


def test_positions_stay_and_normals_are_smooth_across_seams(built):
    asset, _ = built
    knot, _ = trefoil(160, 32)
    np.testing.assert_allclose(asset.vertices.min(0), knot.min(0), atol=0.01)
    np.testing.assert_allclose(asset.vertices.max(0), knot.max(0), atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(asset.normals, axis=1), 1, atol=1e-5)
    position, count = weld_index(asset.vertices)
    assert count < len(asset.vertices)
    first = np.full(count, -1)
    first[position[::-1]] = np.arange(len(position))[::-1]
    np.testing.assert_array_equal(asset.normals, asset.normals[first[position]])


def test_small_meshes_are_not_reduced_nor_projected():
    asset, _ = _build(sphere(16), faces=10**6)
    assert len(asset.faces) == len(sphere(16)[1])
    grey = asset.textures.base_color[..., 0] / 255
    assert grey.min() < 0.27 and grey.max() > 0.73


def test_open_sheet_is_not_closed():
    asset, report = _build(grid_sheet(20))
    assert not asset.is_closed and not report.figures["watertight"]
    np.testing.assert_allclose(
        asset.normals, np.tile([0, 0, 1], (len(asset.normals), 1)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("appearance", "mode"),
    [
        (Heights(clear_above=0.1, alpha=0.0), "MASK"),
        (Heights(clear_above=0.1, alpha=0.5), "BLEND"),
        (Heights(clear_above=0.499, alpha=0.5), "OPAQUE"),
    ],
)
def test_alpha_mode_follows_the_texels(appearance, mode):
    asset, _ = _build(sphere(20), appearance)
    assert asset.alpha_mode == mode
    assert (asset.textures.base_color[..., 3].min() < 255) == (mode != "OPAQUE")


def test_alpha_mode_of_counted_texels():
    alpha = np.full((100, 100), 255, np.uint8)
    alpha[0, :40] = 0
    assert choose_alpha_mode(alpha) == "OPAQUE"  # under half a percent
    alpha[:20] = 0
    assert choose_alpha_mode(alpha) == "MASK"
    alpha[:10] = 128
    assert choose_alpha_mode(alpha) == "BLEND"


def test_vertex_colors_reach_the_texture_through_the_simplified_mesh():
    vertices, faces = trefoil(200, 40, roughness=0.3)
    colors = (vertices - vertices.min(0)) / np.ptp(vertices, axis=0)
    asset, _ = _build((vertices, faces), VertexColors(vertices, faces, colors), texture_size=512)
    size = 512
    at = np.minimum((asset.uvs[asset.faces].mean(1) * size).astype(int), size - 1)
    found = asset.textures.base_color[at[:, 1], at[:, 0], :3] / 255
    centres = asset.vertices[asset.faces].mean(1)
    expected = (centres - vertices.min(0)) / np.ptp(vertices, axis=0)
    error = np.abs(found - expected)
    assert error.mean() < 0.01
    assert np.percentile(error, 99.9) < 0.1


def test_same_bytes_twice(built):
    again, _ = _build(joined(trefoil(160, 32), moved(sphere(4), 0.01, (0.5, 0.5, 0.5))))
    for name in ("vertices", "normals", "uvs", "faces"):
        np.testing.assert_array_equal(getattr(again, name), getattr(built[0], name))
    np.testing.assert_array_equal(again.textures.base_color, built[0].textures.base_color)


_HASH = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.path.insert(0, sys.argv[1])
from test_build import digest
print(digest())
"""


def digest() -> str:
    asset, _ = _build(trefoil(120, 24), faces=2000, normal_map=True)
    parts = [asset.vertices, asset.normals, asset.uvs, asset.faces]
    parts += [asset.textures.base_color, asset.textures.normal]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_same_bytes_in_another_process_with_one_thread():
    here = os.path.dirname(__file__)
    path = os.pathsep.join([os.path.dirname(here), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", _HASH, here]
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert digest() == run.stdout.strip()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 60),
    size=st.sampled_from([1, 16, 64]),
    normal_map=st.booleans(),
)
def test_any_triangles_become_an_asset_or_are_refused(seed, count, size, normal_map):
    rng = np.random.default_rng(seed)
    vertices = rng.standard_normal((rng.integers(3, 40), 3)).astype(np.float32)
    faces = rng.integers(0, len(vertices), (count, 3)).astype(np.int32)
    try:
        asset, _ = _build((vertices, faces), faces=40, texture_size=size, normal_map=normal_map)
    except SurfaceError:
        return
    assert np.isfinite(asset.vertices).all() and np.isfinite(asset.uvs).all()
    np.testing.assert_allclose(np.linalg.norm(asset.normals, axis=1), 1, atol=1e-5)
    assert asset.textures.base_color.shape == (size, size, 4)


def test_nothing_usable_is_refused():
    with pytest.raises(SurfaceError):
        _build((np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32)))


def test_normals_of_a_cube_corner_are_diagonal_however_it_is_cut():
    from helpers.solids import cube

    vertices, faces = cube()
    whole = vertex_normals(vertices, faces)
    np.testing.assert_allclose(whole, np.sign(vertices) / np.sqrt(3), atol=1e-6)
    split = vertex_normals(vertices[faces].reshape(-1, 3), np.arange(36).reshape(-1, 3))
    np.testing.assert_allclose(split, whole[faces.ravel()], atol=1e-6)


def test_normals_are_never_zero():
    vertices = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5], [6, 5, 5], [7, 5, 5]])
    faces = np.int32([[0, 1, 2], [0, 2, 1], [3, 4, 5]])  # two that cancel, one without area
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.abs(normals[:3, 2]), 1, atol=1e-6)


def test_every_step_that_takes_too_long_is_done_in_a_plainer_way(tmp_path):
    """With no time at all the asset is still whole: in budget, UV-mapped, coloured, readable."""
    crumb = moved(sphere(4), 0.01, (0.5, 0.5, 0.5))
    asset, report = _build(joined(trefoil(160, 32), crumb), step_seconds=0.0)
    assert report.figures["fallbacks"] == "clean, simplify, unwrap, bake"
    said = [note for note in report.notes if "took longer than 0 s" in note]
    assert [note.split()[0] for note in said] == ["clean", "simplify", "unwrap", "bake"]
    assert report.figures["components"] == 1  # the crumb is gone here, too
    assert 1000 < len(asset.faces) <= 3000
    assert asset.textures.base_color.shape == (64, 64, 4)
    path = tmp_path / "plain.glb"
    write_glb(asset, path)
    check_glb(path)


def test_faces_in_places_of_their_own_do_not_overlap_and_keep_their_side():
    vertices, faces = trefoil(40, 8)
    for count in (1, 2, 3, len(faces)):
        laid = unwrap_faces(faces[:count], 512)
        corners = laid.uvs[laid.faces].astype(np.float64)
        d1, d2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        areas = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
        assert (areas > 0).all() and areas.sum() / 2 == pytest.approx(laid.coverage, rel=1e-4)
        assert laid.uvs.min() > 0 and laid.uvs.max() < 1
        assert (laid.vertices_index[laid.faces] == faces[:count]).all()
        drawn = np.zeros((2048, 2048), np.uint8)
        for triangle in corners:
            one = np.zeros_like(drawn)
            cv2.fillConvexPoly(one, np.floor(triangle * 2048).astype(np.int32), 1)
            drawn += one
        assert drawn.max() == 1


def test_clustering_meets_its_budget_near_the_surface():
    vertices, faces = trefoil(160, 32)
    fewer, triangles = cluster(vertices, faces, 1500)
    assert 1000 < len(triangles) <= 1500
    assert triangles.max() < len(fewer)
    closest = ClosestPoint(vertices, faces).query(fewer)
    assert np.quantile(closest.distance, 0.99) < 0.02
    same, _ = cluster(vertices, faces, 1500)
    assert (same == fewer).all()


def test_cap_ends_a_step_in_its_middle():
    """A step that launches kernels on and on is stopped, and not before its time."""
    start = time.monotonic()
    with pytest.raises(TimeCapReached), time_cap(0.2):
        while True:
            require_time()
    assert 0.2 <= time.monotonic() - start < 1
    require_time()  # no cap, no end


def test_normal_map_without_simplification_is_said_to_be_flat():
    _, report = _build(sphere(8), faces=100_000, normal_map=True)
    assert any("normal_map is flat" in note for note in report.notes)
