import tracemalloc

import numpy as np
import pytest
from helpers.geometry import (
    edge_uses,
    euler_characteristic,
    face_areas,
    is_closed_and_oriented,
    signed_volume,
)
from scipy.spatial import cKDTree

from onelook.errors import SurfaceError
from onelook.isosurface.cube_cases import CORNER_OFFSETS, EDGE_CORNERS, cube_cases
from onelook.isosurface.marching_cubes import active_cells, marching_cubes, marching_cubes_cells


def grid(points: int) -> list[np.ndarray]:
    axis = np.linspace(-1, 1, points, dtype=np.float32)
    return np.meshgrid(axis, axis, axis, indexing="ij")


def sphere(points: int, radius: float = 0.7) -> np.ndarray:
    x, y, z = grid(points)
    return radius - np.sqrt(x * x + y * y + z * z)


def noise(points: int, seed: int) -> np.ndarray:
    field = np.full((points, points, points), -1.0, np.float32)
    inner = np.random.default_rng(seed).standard_normal((points - 2,) * 3)
    field[1:-1, 1:-1, 1:-1] = inner
    return field


def assert_same_surface(vertices: np.ndarray, reference: np.ndarray, tolerance: float) -> None:
    for points, others in ((vertices, reference), (reference, vertices)):
        assert cKDTree(others).query(points)[0].max() < tolerance


def test_surface_is_the_reference_one(load_case):
    case = load_case("triposr/isosurface")
    density, level = case.arrays["density"], case.info["config"]["threshold"]
    vertices, faces = marching_cubes(density - np.float32(level))
    vertices = vertices / (case.info["config"]["resolution"] - 1)
    assert len(faces) == case.info["n_faces"]
    assert_same_surface(vertices, case.arrays["vertices"], 1e-4)
    bounds = np.stack([vertices.min(0), vertices.max(0)])
    np.testing.assert_allclose(bounds, case.arrays["bbox"], rtol=1e-4, atol=1e-5)
    # The two agree to 0.1 %, not to the last digit: loops of four and more corners may be cut
    # along another diagonal.
    volume = signed_volume(vertices, faces)
    np.testing.assert_allclose(volume, case.info["signed_volume"], rtol=2e-3)


@pytest.mark.parametrize("suffix", ["", "_snap"])
def test_surface_through_grid_points_is_the_reference_one(load_case, suffix):
    case = load_case("triposr/isosurface_snap")
    size = case.info["config"]["resolution"]
    vertices, faces = marching_cubes(case.arrays["density" + suffix].reshape(size, size, size))
    assert len(faces) == len(case.arrays["faces" + suffix])
    assert_same_surface(vertices / (size - 1), case.arrays["vertices" + suffix], 1e-4)
    assert signed_volume(vertices, faces) > 0


def test_sphere_is_round_closed_and_faces_outward():
    vertices, faces = marching_cubes(sphere(64))
    position = vertices / 63 * 2 - 1
    assert np.abs(np.linalg.norm(position, axis=1) - 0.7).max() < 5e-4
    assert (edge_uses(faces) == 2).all()
    assert euler_characteristic(vertices, faces) == 2
    assert signed_volume(position, faces) == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=5e-3)
    a, b, c = np.moveaxis(position[faces], 1, 0)
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) > 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_closed_in_every_case(seed):
    """Random corners meet all 256 cases, with every ambiguous side between them."""
    field = noise(32, seed)
    _, faces = marching_cubes(field)
    inside = field >= 0
    cases = sum(
        inside[i : i + 31, j : j + 31, k : k + 31].astype(int) << c
        for c, (i, j, k) in enumerate(CORNER_OFFSETS.tolist())
    )
    assert len(np.unique(cases)) == 256
    assert is_closed_and_oriented(faces)


def test_case_table_uses_each_cut_edge_and_no_other():
    table = cube_cases()
    for case in range(256):
        used = table.triangles[table.case_starts[case] : table.case_starts[case + 1]]
        low, high = (case >> EDGE_CORNERS.T) & 1
        assert set(used.ravel().tolist()) == set(np.flatnonzero(low != high).tolist())


def test_sparse_form_is_the_dense_one():
    field = sphere(40)
    cells = active_cells(field >= 0)
    values = np.stack([field[tuple((cells + offset).T)] for offset in CORNER_OFFSETS], axis=1)
    inactive = np.array([[0, 0, 0], [20, 20, 20]])  # outside, inside: allowed, give nothing
    extra = np.stack([field[tuple((inactive + offset).T)] for offset in CORNER_OFFSETS], axis=1)
    sparse = marching_cubes_cells(
        np.concatenate([values, extra]), np.concatenate([cells, inactive])
    )
    for got, expected in zip(sparse, marching_cubes(field), strict=True):
        assert got.dtype == expected.dtype and np.array_equal(got, expected)


def test_far_apart_cells_cost_no_more_than_near_ones():
    field = sphere(24)
    cells = active_cells(field >= 0)
    values = np.stack([field[tuple((cells + offset).T)] for offset in CORNER_OFFSETS], axis=1)
    far = np.concatenate([cells, cells + 500_000])  # too far for packed keys
    tracemalloc.start()
    vertices, faces = marching_cubes_cells(np.concatenate([values, values]), far)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    one, one_faces = marching_cubes(field)
    assert np.array_equal(vertices[: len(one)], one)
    assert np.array_equal(faces, np.concatenate([one_faces, one_faces + len(one)]))


def test_min_fraction_leaves_no_face_without_area():
    field = sphere(33, radius=0.5)  # passes exactly through grid points
    cells = active_cells(field >= 0)
    values = np.stack([field[tuple((cells + offset).T)] for offset in CORNER_OFFSETS], axis=1)

    def smallest_area(min_fraction: float) -> float:
        return face_areas(*marching_cubes_cells(values, cells, min_fraction=min_fraction)).min()

    assert smallest_area(0.0) == 0.0
    assert smallest_area(0.05) > 1e-3


def test_level_moves_the_surface():
    by_level, _ = marching_cubes(sphere(32), level=0.2)
    by_field, _ = marching_cubes(sphere(32) - np.float32(0.2))
    np.testing.assert_allclose(by_level, by_field, atol=1e-4)


def test_refuses_what_has_no_surface():
    with pytest.raises(SurfaceError, match="never crosses the level 5"):
        marching_cubes(sphere(8), level=5.0)
    with pytest.raises(ValueError, match=r"2 or more points per axis, got \(8, 8\)"):
        marching_cubes(np.zeros((8, 8), np.float32))
