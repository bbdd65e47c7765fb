import numpy as np
import pytest
import warp as wp
from scipy.spatial import Delaunay

from onelook.render import (
    face_kernels,
    raster_kernels,
    shade_kernels,
    shadow_kernels,
    texture_kernels,
)
from onelook.render.camera import orbit_camera, orthographic_camera
from onelook.render.raster_buffers import BandBuffers, FaceBuffers
from onelook.render.raster_reference import rasterize_reference
from onelook.render.rasterize import rasterize


def clip_positions(vertices, camera, aspect=1.0):
    homogeneous = np.c_[vertices, np.ones(len(vertices))].astype(np.float32)
    return homogeneous @ camera.clip_from_world(aspect).T


def soup(count, size, seed=0):
    """`count` triangles in and far beyond the picture, at clip w from 0.5 to 2."""
    random = np.random.default_rng(seed)
    centres = random.uniform(-1.1, 1.1, (count, 1, 3))
    vertices = (centres + random.normal(0, [size, size, min(size, 0.5)], (count, 3, 3))).reshape(
        -1, 3
    )
    w = random.uniform(0.5, 2, (len(vertices), 1))
    return np.c_[vertices * w, w].astype(np.float32), np.arange(3 * count).reshape(-1, 3)


def assert_same(raster, truth):
    np.testing.assert_array_equal(raster.face_ids, truth.face_ids)
    np.testing.assert_array_equal(raster.depth, truth.depth)
    np.testing.assert_allclose(raster.barycentrics, truth.barycentrics, atol=1e-6)


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("count, size", [(60, 200.0), (40, 3.0), (300, 0.3), (2000, 0.02)])
def test_soups_match_the_plain_twin_in_every_pixel(count, size, cull):
    positions, faces = soup(count, size)
    raster = rasterize(positions, faces, 97, 63, cull=cull, device="cpu")
    assert (raster.face_ids >= 0).mean() > 0.05
    assert_same(raster, rasterize_reference(positions, faces, 97, 63, cull=cull))


def test_a_closed_mesh_matches_the_plain_twin(knot):
    positions = clip_positions(knot.vertices, orbit_camera(20, 10, 2.6, 30))
    raster = rasterize(positions, knot.faces, 120, 120, cull=True, device="cpu")
    assert_same(raster, rasterize_reference(positions, knot.faces, 120, 120, cull=True))
    both_sides = rasterize(positions, knot.faces, 120, 120, device="cpu")
    np.testing.assert_array_equal(raster.face_ids, both_sides.face_ids)  # the front hides the back


def test_pixels_of_a_tiling_belong_to_exactly_one_face():
    random = np.random.default_rng(5)
    size = 32
    inner = np.r_[random.uniform(0, size, (30, 2)), random.integers(0, size, (30, 2)) + 0.5]
    points = np.r_[[[0, 0], [size, 0], [0, size], [size, size]], inner]  # some on pixel centres
    faces = Delaunay(points).simplices
    clip = np.c_[points / size * 2 - 1, np.zeros(len(points)), np.ones(len(points))]
    cover = sum(
        (rasterize(clip, face[None], size, size, device="cpu").face_ids >= 0).astype(int)
        for face in faces
    )
    assert (cover == 1).all()


def test_weights_are_perspective_correct():
    random = np.random.default_rng(2)
    vertices = random.uniform(-0.5, 0.5, (30, 3))
    faces = np.arange(30).reshape(-1, 3)
    camera = orbit_camera(15, 25, 1.1, 70)  # close: perspective is strong
    raster = rasterize(clip_positions(vertices, camera), faces, 200, 200, device="cpu")
    row, column = np.nonzero(raster.face_ids >= 0)
    weights = raster.barycentrics[row, column].astype(np.float64)
    weights = np.c_[weights, 1 - weights.sum(axis=1)]
    corners = vertices[faces[raster.face_ids[row, column]]]  # (P, 3, 3)
    points = (weights[:, :, None] * corners).sum(axis=1)
    pixels = camera.project(points, 200, 200)
    assert len(row) > 5000
    steep = abs(pixels - np.c_[column + 0.5, row + 0.5]).max(axis=1)
    assert np.quantile(steep, 0.99) < 0.02  # the point under a pixel projects back onto it


def test_depth_runs_from_near_to_far():
    camera = orthographic_camera()
    square = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0, 0.5, 0]])
    depths = [
        rasterize(
            clip_positions(square + [0, 0, z], camera), np.array([[0, 1, 2]]), 9, 9, device="cpu"
        ).depth[5, 4]
        for z in (0.8, 0.0, -0.8)
    ]
    assert 0 < depths[0] < depths[1] < depths[2] < 1
    assert depths[1] == pytest.approx(0.5, abs=1e-6)


def test_equal_depth_goes_to_the_lower_face():
    positions = np.array([[-1, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]], np.float32)
    raster = rasterize(positions, np.array([[1, 0, 2], [0, 1, 2]]), 16, 16, device="cpu")
    assert set(np.unique(raster.face_ids)) == {-1, 0}


def test_faces_without_area_or_behind_the_camera_draw_nothing():
    positions = np.array(
        [[-1, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1], [0, 0, 0, -1], [np.nan, 0, 0, 1]], np.float32
    )
    faces = np.array([[0, 1, 1], [0, 1, 3], [0, 1, 4]])
    raster = rasterize(positions, faces, 16, 16, device="cpu")
    assert (raster.face_ids == -1).all() and (raster.depth == 1).all()


def test_threads_do_not_change_the_picture(monkeypatch):
    positions, faces = soup(500, 0.2)
    rasters = []
    for threads in (1, 2, 7):
        for module in ("onelook.kernels", "onelook.render.raster_buffers"):
            monkeypatch.setattr(f"{module}.thread_count", lambda threads=threads: threads)
        rasters.append(rasterize(positions, faces, 150, 150, device="cpu"))
    for raster in rasters[1:]:
        np.testing.assert_array_equal(raster.face_ids, rasters[0].face_ids)


def test_unknown_engines_and_sizes_are_refused():
    positions, faces = soup(1, 0.5)
    with pytest.raises(ValueError, match="engine must be"):
        rasterize(positions, faces, 8, 8, engine="opengl")
    with pytest.raises(ValueError, match="got 0 x 8"):
        rasterize(positions, faces, 0, 8)


@pytest.mark.parametrize("count, size", [(60, 200.0), (40, 3.0), (2000, 0.02)])
def test_the_cuda_way_matches_the_plain_twin_when_run_here(count, size, monkeypatch):
    def one_launch(kernel, count, inputs, device, pieces=None):  # its atomics allow one thread
        wp.launch(kernel, dim=count, inputs=[0, *inputs], device=device)

    positions, faces = soup(count, size)
    monkeypatch.setattr("onelook.render.raster_buffers.launch", one_launch)
    screen = raster_kernels.screen_array(len(positions), "cpu")
    clip = wp.array(positions, dtype=wp.vec4, device="cpu")
    face_array = wp.array(faces.astype(np.int32), dtype=wp.vec3i, device="cpu")
    one_launch(raster_kernels.project_clip, len(positions), [clip, 197, 163, screen], "cpu")
    layers = [FaceBuffers(len(faces), 197, 163, "cpu") for _ in range(2)]
    layers[0].draw(screen, face_array, False)
    layers[1].draw(screen, face_array, False, layers[0])
    first = rasterize_reference(positions, faces, 197, 163)
    np.testing.assert_array_equal(layers[0].face_ids.numpy(), first.face_ids)
    np.testing.assert_array_equal(layers[0].depth.numpy(), first.depth)
    second = layers[1].face_ids.numpy()
    assert ((second != first.face_ids) | (second == -1)).all()
    bands = [BandBuffers(len(faces), 197, 163, "cpu") for _ in range(2)]
    bands[0].draw(screen, face_array, False)
    bands[1].draw(screen, face_array, False, bands[0])
    np.testing.assert_array_equal(second, bands[1].face_ids.numpy())


def test_every_kernel_compiles_for_cuda(tmp_path):
    modules = (face_kernels, raster_kernels, shade_kernels, shadow_kernels, texture_kernels)
    for module in modules:
        wp.compile_aot_module(module, arch=[80], module_dir=tmp_path, use_ptx=True)
    assert len(list(tmp_path.glob("*.ptx"))) == len(modules)


@pytest.mark.gpu
def test_cuda_matches_the_plain_twin():
    if not wp.is_cuda_available():
        pytest.skip("no CUDA device")
    for count, size in ((60, 200.0), (40, 3.0), (2000, 0.02)):
        positions, faces = soup(count, size)
        raster = rasterize(positions, faces, 197, 163, device="cuda:0")
        assert_same(raster, rasterize_reference(positions, faces, 197, 163))


@pytest.mark.gpu
def test_nvdiffrast_agrees_away_from_edges(knot):
    pytest.importorskip("nvdiffrast.torch")
    positions = clip_positions(knot.vertices, orbit_camera(20, 10, 2.6, 30))
    fast = rasterize(positions, knot.faces, 256, 256, engine="nvdiffrast")
    plain = rasterize(positions, knot.faces, 256, 256, device="cpu")
    assert (fast.face_ids == plain.face_ids).mean() > 0.99
