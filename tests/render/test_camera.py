import numpy as np
import pytest

from onelook.render.camera import Camera, orbit_camera, orthographic_camera, turning_distance

CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def test_azimuth_zero_sees_the_front_upright():
    camera = orbit_camera(0, 0, 3, 40)
    pixels = camera.project(np.array([[0, 0, 0.5], [0.2, 0, 0.5], [0, 0.2, 0.5]]), 100, 100)
    assert pixels[0] == pytest.approx([50, 50])
    assert pixels[1][0] > 50 and pixels[1][1] == pytest.approx(50)  # +X is right
    assert pixels[2][1] < 50 and pixels[2][0] == pytest.approx(50)  # +Y is up


@pytest.mark.parametrize(
    "angles, eye",
    [((0, 0), [0, 0, 2]), ((90, 0), [2, 0, 0]), ((180, 0), [0, 0, -2]), ((0, 90), [0, 2, 0])],
)
def test_orbit_camera_stands_where_it_should(angles, eye):
    matrix = orbit_camera(*angles, 2, 40).world_to_camera
    assert -matrix[:3, :3].T @ matrix[:3, 3] == pytest.approx(eye, abs=1e-6)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_front_view_fills_the_picture_with_the_unit_box():
    pixels = orthographic_camera().project(CORNERS, 64, 64)
    assert pixels.min() == pytest.approx(0, abs=1e-4)
    assert pixels.max() == pytest.approx(64, abs=1e-4)


@pytest.mark.parametrize("elevation", [-30, 0, 12, 50, 90])
@pytest.mark.parametrize("fov", [10, 30, 75])
def test_turning_distance_is_the_smallest_that_clips_nothing(elevation, fov):
    vertices = np.random.default_rng(1).uniform(-0.5, 0.5, (40, 3))
    distance = turning_distance(vertices, elevation, fov, margin=1)
    views = np.stack(
        [
            orbit_camera(azimuth, elevation, distance, fov).project(vertices, 2, 2) - 1
            for azimuth in np.arange(0, 360, 0.5)
        ]
    )
    assert abs(views).max() == pytest.approx(1, abs=1e-3)


def test_near_and_far_hold_the_canonical_box():
    camera = orbit_camera(33, 12, 2.5, 30)
    clip = np.c_[CORNERS, np.ones(8)] @ camera.clip_from_world(1).T
    assert (abs(clip[:, 2]) <= clip[:, 3]).all()


def test_a_camera_is_a_pinhole_or_parallel_not_both():
    with pytest.raises(ValueError, match="either fov_degrees or half_height"):
        Camera(np.eye(4, dtype=np.float32))
    with pytest.raises(ValueError, match="either fov_degrees or half_height"):
        Camera(np.eye(4, dtype=np.float32), fov_degrees=30, half_height=1)
    with pytest.raises(ValueError, match="between 0 and 180"):
        Camera(np.eye(4, dtype=np.float32), fov_degrees=180)
