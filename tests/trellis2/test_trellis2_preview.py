import math

import numpy as np
import pytest

from onelook.render.camera import Camera
from trellis2_backend.frame import TO_CANONICAL
from trellis2_backend.preview import (
    MAPS,
    aces,
    cube_directions,
    encode,
    film_cameras,
    lay_maps_out,
    snapshot_cameras,
)

# The original's cameras look along +Z with +Y down, ours along -Z with +Y up.
FLIP = np.diag([1.0, -1.0, -1.0])


@pytest.fixture
def cameras(load_case):
    return load_case("trellis2/camera_path")


@pytest.fixture
def pictures(load_case):
    return load_case("trellis2/render_math")


def close(case) -> dict:
    return {"rtol": case.info["rtol"], "atol": case.info["atol"]}


def in_canonical_space(extrinsics: np.ndarray) -> np.ndarray:
    """World to camera, z up and OpenCV -> y up and OpenGL."""
    turned = np.eye(4)
    turned[:3, :3] = FLIP @ extrinsics[:3, :3] @ TO_CANONICAL.T
    turned[:3, 3] = FLIP @ extrinsics[:3, 3]
    return turned


@pytest.mark.parametrize("name", ["video8", "video120", "snapshot8"])
def test_the_orbit_stands_where_the_originals_cameras_do(cameras, name):
    wanted = cameras.arrays[f"{name}_extrinsics"]
    got = snapshot_cameras(len(wanted)) if name == "snapshot8" else film_cameras(len(wanted))
    for camera, extrinsics in zip(got, wanted, strict=True):
        turned = in_canonical_space(extrinsics)
        np.testing.assert_allclose(camera.world_to_camera, turned, **close(cameras))


@pytest.mark.parametrize("name", ["video8", "snapshot8"])
def test_their_pictures_show_as_much(cameras, name):
    camera = film_cameras(1)[0] if name == "video8" else snapshot_cameras(1)[0]
    for intrinsics in cameras.arrays[f"{name}_intrinsics"]:
        assert 0.5 / camera.half_extent == pytest.approx(intrinsics[0, 0], rel=1e-5)
        assert intrinsics[:2, 2] == pytest.approx(0.5)


def test_rays_of_a_camera_end_in_the_pixels_they_belong_to(cameras):
    """The recorded rays of a 6 x 6 picture, against projecting points on them."""
    arrays = cameras.arrays
    origin, directions = arrays["rays_o_6x6"].reshape(3), arrays["rays_d_6x6"].reshape(-1, 3)
    eyes = [TO_CANONICAL.T @ eye_of(camera) for camera in film_cameras(8) + snapshot_cameras(8)]
    number = int(np.linalg.norm(np.array(eyes) - origin, axis=1).argmin())
    assert eyes[number] == pytest.approx(origin, abs=1e-5)
    camera = (film_cameras(8) + snapshot_cameras(8))[number]
    pixels = camera.project((origin + 2 * directions) @ TO_CANONICAL.T, 6, 6)
    rows, columns = np.divmod(np.arange(36), 6)
    assert pixels == pytest.approx(np.stack([columns, rows], 1) + 0.5, abs=1e-3)


def eye_of(camera: Camera) -> np.ndarray:
    return -camera.world_to_camera[:3, :3].T @ camera.world_to_camera[:3, 3]


def test_our_projection_is_the_originals(pictures):
    """Their camera's axes turned into ours, and their first row at the top."""
    focal = pictures.arrays["intrinsics_fov40"][0, 0]
    fov = math.degrees(2 * math.atan(0.5 / focal))
    assert fov == pytest.approx(40, rel=1e-6)
    ours = Camera(np.eye(4, dtype=np.float32), fov_degrees=fov, near=1, far=100).projection(1)
    theirs = pictures.arrays["projection_near1_far100"]
    flip = np.diag([1, -1, -1, 1])
    turned = np.diag([1, -1, 1, 1]) @ ours @ flip  # row 0 of their raster is clip space's -1
    np.testing.assert_allclose(turned, theirs, **close(pictures))


def test_tone_mapping_and_display_encoding(pictures):
    arrays = pictures.arrays
    np.testing.assert_allclose(aces(arrays["hdr"]), arrays["aces"], **close(pictures))
    np.testing.assert_allclose(encode(arrays["aces"]), arrays["gamma"], **close(pictures))


def test_directions_of_the_cube_map(pictures):
    places, wanted = pictures.arrays["cube_xy"], pictures.arrays["cube_dir"]
    for face in range(6):
        np.testing.assert_allclose(cube_directions(face, places), wanted[face], **close(pictures))


def test_maps_are_laid_out_as_the_original_does(pictures):
    arrays, wanted = pictures.arrays, pictures.arrays["vis_frames"]
    for number, frame in enumerate(wanted):
        maps = [arrays[f"in_{name}"][number] for name in MAPS]
        shaded, normal = arrays["in_shaded"][number], arrays["in_normal"][number]
        assert np.array_equal(lay_maps_out(shaded, normal, maps, frame.shape[1] // 2), frame)
