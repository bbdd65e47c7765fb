import itertools

import numpy as np
import pytest
import torch

from onelook.surface import Material
from trellis2_backend.frame import TO_CANONICAL, Frame
from trellis2_backend.voxel_appearance import VoxelAppearance, VoxelAttributes


def some_voxels(resolution: int, share: float, channels: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    cells = rng.permutation(resolution**3)[: int(share * resolution**3)]
    coords = np.stack(np.unravel_index(cells, (resolution,) * 3), 1).astype(np.int32)
    return coords, rng.random((len(coords), channels), np.float32)


def sampled_slowly(coords, feats, points):
    """Trilinear weights of the eight surrounding voxels, over the sum of those there are."""
    row_of = {tuple(c): i for i, c in enumerate(coords.tolist())}
    result = np.zeros((len(points), feats.shape[1]))
    for i, point in enumerate(points.astype(np.float64)):
        base = np.floor(point - 0.5).astype(int)
        total = 0.0
        for step in itertools.product((0, 1), repeat=3):
            place = base + step
            if (row := row_of.get(tuple(place.tolist()))) is not None:
                weight = np.prod(1 - np.abs(point - place - 0.5))
                result[i] += weight * feats[row]
                total += weight
        result[i] /= max(total, 1e-12)
    return result


def test_reference_grid_sampling(load_case):
    case = load_case("trellis2/grid_sample_trilinear")
    batch, _, *sides = case.info["config"]["shape"]
    assert len(set(sides)) == 1
    coords = case.arrays["coords"]
    for item in range(batch):
        mine = coords[:, 0] == item
        grid = VoxelAttributes(coords[mine, 1:], case.arrays["feats"][mine], sides[0], "cpu")
        points = case.arrays["grid"][item]
        got, is_found = grid.sample(points)
        wanted = case.arrays["trilinear"][item]
        np.testing.assert_allclose(got, wanted, case.info["rtol"], case.info["atol"])
        assert np.array_equal(is_found, (wanted != 0).any(1))


def test_reference_query_of_a_mesh_with_voxels(load_case):
    case = load_case("trellis2/mesh_with_voxel_query")
    config, arrays = case.info["config"], case.arrays
    resolution = round(1 / config["voxel_size"])
    grid = VoxelAttributes(arrays["coords"], arrays["attrs"], resolution, "cpu")
    places = (arrays["xyz"] - config["origin"]) / config["voxel_size"]
    got, _ = grid.sample(places)
    np.testing.assert_allclose(got, arrays["out"], case.info["rtol"], case.info["atol"])


@pytest.mark.parametrize("resolution", [5, 8, 19])  # less than a block, one, several with a rest
def test_sampling_against_the_obvious_way(resolution):
    coords, feats = some_voxels(resolution, 0.4, 5)
    points = np.random.default_rng(1).uniform(-2, resolution + 2, (800, 3)).astype(np.float32)
    got, is_found = VoxelAttributes(coords, feats, resolution, "cpu").sample(points)
    np.testing.assert_allclose(got, sampled_slowly(coords, feats, points), atol=2e-5)
    assert 0.2 < is_found.mean() < 0.9


def test_points_far_outside_have_no_voxel():
    grid = VoxelAttributes(*some_voxels(8, 1.0, 2), 8, "cpu")
    far = np.array([[1e30, 4, 4], [-1e30, 4, 4], [4, 3e9, 4], [4, 4, -0.51], [4, 4, 8.51]])
    got, is_found = grid.sample(far)
    assert not is_found.any() and not got.any()


def test_a_point_off_the_voxels_takes_the_nearest_one():
    coords, attributes = some_voxels(16, 0.02, 6)
    appearance = VoxelAppearance(coords, attributes, 16, np.eye(4), "cpu")
    points = np.random.default_rng(2).uniform(-4, 20, (200, 3)).astype(np.float32)
    material = appearance.sample(points, points)
    distance = np.linalg.norm(points[:, None] - (coords + 0.5), axis=2)
    off = ~VoxelAttributes(coords, attributes, 16, "cpu").sample(points)[1]
    assert 100 < off.sum() < 200
    assert np.array_equal(rows_of(material)[off], attributes[distance.argmin(1)][off])


def test_attributes_land_in_their_channels_and_in_range():
    coords = np.array([[3, 4, 5]], np.int32)
    attributes = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], np.float32)
    centre = np.array([[3.5, 4.5, 5.5]], np.float32)
    material = VoxelAppearance(coords, attributes, 8, np.eye(4), "cpu").sample(centre, centre)
    assert np.allclose(material.base_color, [[0.1, 0.2, 0.3]])
    values = (material.metallic, material.roughness, material.alpha)
    assert np.allclose(np.concatenate(values), [0.4, 0.5, 0.6])
    wild = VoxelAppearance(coords, 20 * attributes - 5, 8, np.eye(4), "cpu")
    assert set(rows_of(wild.sample(centre, centre)).ravel().tolist()) == {0.0, 1.0}


def test_a_frame_leads_from_canonical_space_back_to_the_voxels():
    """A decoded vertex, moved to canonical space, is sampled where it came from."""
    rng = np.random.default_rng(4)
    vertices = rng.uniform(-0.4, 0.3, (50, 3)) * [1, 0.5, 0.8]
    frame = Frame.fitting(vertices)
    canonical = frame.to_canonical(vertices)
    assert np.ptp(canonical, axis=0).max() == pytest.approx(1)
    assert canonical.max(0) + canonical.min(0) == pytest.approx(0, abs=1e-6)
    matrix = frame.voxels_from_canonical(1024)
    places = canonical @ matrix[:3, :3].T + matrix[:3, 3]
    assert places == pytest.approx((vertices + 0.5) * 1024, abs=1e-3)
    assert np.linalg.det(TO_CANONICAL) == pytest.approx(1)
    front, up = TO_CANONICAL @ [0, -1, 0], TO_CANONICAL @ [0, 0, 1]
    assert front.tolist() == [0, 0, 1] and up.tolist() == [0, 1, 0]


def test_wrong_shapes_are_refused():
    coords, attributes = some_voxels(8, 0.1, 6)
    with pytest.raises(ValueError, match=r"attributes must be \(N, 6\), got"):
        VoxelAppearance(coords, attributes[:, :5], 8, np.eye(4))
    with pytest.raises(ValueError, match=r"coords must be \(N, 3\)"):
        VoxelAppearance(coords[1:], attributes, 8, np.eye(4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_samples_alike():
    coords, feats = some_voxels(32, 0.3, 6)
    points = np.random.default_rng(1).uniform(-1, 33, (5000, 3)).astype(np.float32)
    got, is_found = VoxelAttributes(coords, feats, 32, "cpu").sample(points)
    there, is_found_there = VoxelAttributes(coords, feats, 32, "cuda:0").sample(points)
    assert np.array_equal(is_found, is_found_there)
    np.testing.assert_allclose(there, got, atol=1e-5)


def rows_of(material: Material) -> np.ndarray:
    surface = (material.metallic, material.roughness, material.alpha)
    return np.column_stack([material.base_color, *surface])
