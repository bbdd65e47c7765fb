import numpy as np
import pytest
import torch
from helpers.geometry import euler_characteristic, is_closed_and_oriented, signed_volume

from onelook.errors import SurfaceError
from onelook.isosurface.cube_cases import CORNER_OFFSETS
from onelook.isosurface.flexicubes import cell_weights, flexicubes
from trellis_backend.extract_mesh import ExtractedMesh, extract_mesh


def torch_case(case) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in case.arrays.items()}


def noisy_voxels(resolution: int, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random voxels in random order, as far as the border, with random values."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(resolution**3, generator=generator)[: int(share * resolution**3)]
    coords = torch.stack([chosen // resolution**2, chosen // resolution % resolution], 1)
    coords = torch.cat([coords, (chosen % resolution)[:, None]], 1).int()
    return coords, torch.randn(len(coords), 101, generator=generator)


def ball_voxels(resolution: int, centre: torch.Tensor, radius: float):
    """The voxels that a ball's surface passes through; all units are voxels."""
    reach = torch.arange(-int(radius) - 2, int(radius) + 2)
    coords = centre.round().int() + torch.cartesian_prod(reach, reach, reach).int()
    corners = coords[:, None] + torch.tensor(CORNER_OFFSETS)
    sdf = (corners - centre).norm(dim=2) - radius
    crossed = ((sdf < 1) & (sdf > -3)).any(1)
    feats = torch.zeros(int(crossed.sum()), 101)
    feats[:, :8] = sdf[crossed] / resolution
    return coords[crossed], feats


def extract_densely(coords, feats, resolution: int) -> ExtractedMesh:
    """The same by the words of the specification, on full grids."""
    side = resolution + 1
    corners = coords[:, None].long() + torch.tensor(CORNER_OFFSETS)
    at = (corners * torch.tensor([side * side, side, 1])).sum(2).reshape(-1)
    values = torch.cat(
        [feats[:, :8, None] - 1 / resolution, feats[:, 8:32].reshape(-1, 8, 3),
         feats[:, 53:].reshape(-1, 8, 6)], 2
    )  # fmt: skip
    total = torch.zeros(side**3, 10).index_add_(0, at, values.reshape(-1, 10))
    uses = torch.bincount(at, minlength=side**3)[:, None]
    mean = total / uses.clamp(min=1)
    mean[uses[:, 0] == 0, 0] = 1
    raw = torch.zeros(resolution**3, 21)
    cells = coords.long() @ torch.tensor([resolution**2, resolution, 1])
    raw[cells] = feats[:, 32:53]
    axis = torch.arange(side)
    positions = torch.cartesian_prod(axis, axis, axis) / resolution - 0.5
    positions += torch.tanh(mean[:, 1:4]) / (2 * resolution)
    mesh = flexicubes(mean[:, 0], positions, cell_weights(raw, 0.99), torch.sigmoid(mean[:, 4:]))
    return ExtractedMesh(mesh.vertices, mesh.faces, mesh.attributes)


def test_reference_mesh(load_case):
    case = load_case("trellis/features_to_mesh")
    arrays = torch_case(case)
    mesh = extract_mesh(arrays["coords"][:, 1:], arrays["feats"], case.info["config"]["res"])
    assert torch.equal(mesh.faces, arrays["faces"])
    got = (mesh.vertices, mesh.attributes, mesh.face_normals)
    expected = (arrays["vertices"], arrays["vertex_attrs"], arrays["face_normal"])
    torch.testing.assert_close(got, expected, **case.info["tolerance"])


def test_reference_mesh_of_the_tiny_decoder(load_case):
    case = load_case("trellis/slat_mesh_decoder_tiny")
    arrays = torch_case(case)
    first = arrays["out_coords"][:, 0] == 0
    resolution = 4 * case.info["config"]["resolution"]
    mesh = extract_mesh(arrays["out_coords"][first, 1:], arrays["out_feats"][first], resolution)
    assert torch.equal(mesh.faces, arrays["mesh_faces"])
    got = (mesh.vertices, mesh.attributes)
    torch.testing.assert_close(
        got, (arrays["mesh_vertices"], arrays["mesh_attrs"]), **case.info["tolerance"]
    )


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_equals_the_dense_definition(share):
    """Scattered voxels: the surface also crosses cells of no voxel, and leaves at the border."""
    coords, feats = noisy_voxels(14, share, seed=5)
    mesh, expected = extract_mesh(coords, feats, 14), extract_densely(coords, feats, 14)
    assert torch.equal(mesh.faces, expected.faces)
    # The order of eight summands is not the same, and a zero point may lie between small numbers.
    torch.testing.assert_close(mesh.vertices, expected.vertices, rtol=0, atol=1e-5)
    torch.testing.assert_close(mesh.attributes, expected.attributes, rtol=0, atol=1e-4)


def test_order_of_voxels_and_number_of_threads_change_nothing():
    coords, feats = noisy_voxels(32, 0.2, seed=6)
    expected = extract_mesh(coords, feats, 32)
    order = torch.randperm(len(coords), generator=torch.Generator().manual_seed(7))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        mesh = extract_mesh(coords[order], feats[order], 32)
    finally:
        torch.set_num_threads(threads)
    for name in ("vertices", "faces", "attributes"):
        assert torch.equal(getattr(mesh, name), getattr(expected, name))


def test_features_are_left_as_they_were():
    coords, feats = noisy_voxels(8, 0.3, seed=8)
    kept = feats.clone()
    extract_mesh(coords, feats, 8)
    assert torch.equal(feats, kept)


def test_cost_does_not_grow_with_the_cube():
    """A ball in a grid of 30000^3 cells; a full grid would take a hundred terabytes."""
    resolution, radius = 30_000, 14.0
    centre = torch.tensor([15_000.2, 14_000.4, 15_900.7])
    coords, feats = ball_voxels(resolution, centre, radius)
    mesh = extract_mesh(coords, feats, resolution)
    # Only voxels near the surface are given, so there is an inner wall as well.
    vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy()
    assert is_closed_and_oriented(faces)
    assert euler_characteristic(vertices, faces) == 4
    in_voxels = (vertices + 0.5) * resolution - centre.numpy()
    distance = np.linalg.norm(in_voxels, axis=1)
    outer = distance > radius - 1
    # bias -1/R moves the surface outwards by one voxel; float32 positions end at 0.001 voxels
    assert np.abs(distance[outer] - radius - 1).max() < 0.1
    assert signed_volume(in_voxels, faces) > 0


def test_decoder_without_colour_and_in_half_precision():
    coords, feats = noisy_voxels(10, 0.3, seed=9)
    feats = feats.half()
    with_color = extract_mesh(coords, feats, 10)
    without = extract_mesh(coords, feats[:, :53], 10)
    assert without.attributes is None and without.vertices.dtype == torch.float32
    assert torch.equal(without.faces, with_color.faces)
    assert torch.equal(extract_mesh(coords, feats.float(), 10).vertices, with_color.vertices)


def test_refuses_what_it_cannot_use():
    coords, feats = noisy_voxels(6, 0.3, seed=10)
    feats[:, :8] = 1.0
    with pytest.raises(SurfaceError, match="nowhere crossed by its zero level"):
        extract_mesh(coords, feats, 6)
    with pytest.raises(SurfaceError, match="no voxel"):
        extract_mesh(coords[:0], feats[:0], 6)
    with pytest.raises(ValueError, match=r"101 channels, or 53 without colour, got shape \(64, 7"):
        extract_mesh(coords, feats[:, :7], 6)


@pytest.mark.gpu
def test_cuda_extracts_the_same_mesh_every_time():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    coords, feats = noisy_voxels(48, 0.3, seed=11)
    expected = extract_mesh(coords, feats, 48)
    first, again = (extract_mesh(coords.cuda(), feats.cuda(), 48) for _ in range(2))
    assert torch.equal(first.vertices, again.vertices) and torch.equal(first.faces, again.faces)
    # tanh and sigmoid differ in the last digit, so a quad in thousands is cut the other way
    assert len(first.faces) == len(expected.faces)
    torch.testing.assert_close(first.vertices.cpu(), expected.vertices, rtol=0, atol=1e-5)
    assert (first.faces.cpu() == expected.faces).all(1).float().mean() > 0.999
