import hashlib
import zlib

import numpy as np
import pytest
import torch
from helpers.geometry import euler_characteristic, is_closed_and_oriented, signed_volume

from onelook.errors import SurfaceError
from onelook.isosurface.cube_cases import CORNER_OFFSETS
from onelook.isosurface.flexicubes import CellWeights, cell_weights, flexicubes, flexicubes_cells
from onelook.isosurface.flexicubes_lattice import Lattice, find
from onelook.isosurface.flexicubes_tables import EDGE_CORNERS, dual_cases


def lattice_points(cells: int) -> torch.Tensor:
    """Points of a grid of `cells` per axis in [-0.5, 0.5], x slowest: (P, 3)."""
    axis = torch.arange(cells + 1)
    return torch.cartesian_prod(axis, axis, axis) / cells - 0.5


def torch_case(case) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in case.arrays.items()}


def random_weights(count: int, seed: int = 0) -> CellWeights:
    raw = torch.randn(count, 21, generator=torch.Generator().manual_seed(seed))
    return cell_weights(raw, 0.99)


@pytest.mark.parametrize("name", ["sphere", "torus", "blobs", "noise", "sphere_noweights"])
def test_trellis_reference_mesh(load_case, name):
    case = load_case(f"trellis/flexicubes_{name}")
    arrays, config = torch_case(case), case.info["config"]
    resolution = config["resolution"]
    positions = lattice_points(resolution) + torch.tanh(arrays["deform"]) / (2 * resolution)
    weights, colors = None, None
    if config["weights"]:
        raw = torch.cat([arrays["beta"], arrays["alpha"], arrays["gamma"][:, None]], 1)
        weights = cell_weights(raw, config["weight_scale"])
        colors = torch.sigmoid(arrays["colors_in"])
    mesh = flexicubes(arrays["sdf"], positions, weights, colors)
    assert torch.equal(mesh.faces, arrays["faces"])
    torch.testing.assert_close(mesh.vertices, arrays["vertices"], **case.info["tolerance"])
    if colors is not None:
        torch.testing.assert_close(mesh.attributes, arrays["colors_out"], **case.info["tolerance"])


@pytest.mark.parametrize("name", ["sphere", "noise"])
def test_instantmesh_reference_mesh(load_case, name):
    case = load_case(f"instantmesh/flexicubes_{name}")
    arrays = torch_case(case)
    weights = cell_weights(arrays["weight"], case.info["config"]["weight_scale"])
    mesh = flexicubes(arrays["sdf"], arrays["verts_deformed"], weights)
    assert torch.equal(mesh.faces, arrays["mesh_faces"])
    torch.testing.assert_close(mesh.vertices, arrays["mesh_verts"], **case.info["tolerance"])


def test_tables_are_the_original_ones(load_case):
    tables = dual_cases()
    digests = [
        hashlib.sha256(table.tobytes()).hexdigest()
        for table in (tables.groups, tables.group_counts, tables.twin_rows)
    ]
    assert digests == [
        "d3f5350eced63fcaa843c7a9d4c5a15e5d031858f9c1f72a48fffc453858ff0e",
        "11ecbe53bc45ef3b1633df9de77c9c0ef7439f0a09b9bb13f2f9e14dc7dd6bdd",
        "2619074d39d60bb57c9d30ae29239dfd5f40b324e8f63f488d6126d4f1e24198",
    ]
    recorded = load_case("instantmesh/flexicubes_tables").arrays
    row_digests = [zlib.crc32(row.tobytes()) for row in tables.groups]
    assert row_digests == recorded["dmc_row_crc32"].tolist()
    twins = np.minimum(tables.twin_rows, 127).astype(np.int8)
    assert [zlib.crc32(row.tobytes()) for row in twins] == recorded["check_row_crc32"].tolist()
    assert np.array_equal(EDGE_CORNERS, recorded["cube_edges"])
    assert np.array_equal(CORNER_OFFSETS, recorded["cube_corners"])


def test_every_cut_edge_is_in_exactly_one_group():
    tables = dual_cases()
    for case in range(256):
        low, high = (case >> EDGE_CORNERS.T) & 1
        used = tables.groups[case][tables.groups[case] >= 0]
        assert sorted(used.tolist()) == np.flatnonzero(low != high).tolist()


def test_ball_is_round_closed_and_faces_outward():
    points = lattice_points(32)
    sdf = points.norm(dim=1) - 0.35
    mesh = flexicubes(sdf, points, attributes=points)
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    # the mean of points on a sphere lies beneath it, by less than (1 / 32)^2 / 2 / 0.35
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.35).max() < 1.4e-3
    assert euler_characteristic(vertices, faces) == 2 and is_closed_and_oriented(faces)
    assert signed_volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.35**3, rel=1e-2)
    assert torch.equal(mesh.attributes, mesh.vertices)  # attributes are interpolated alike
    # weights move the vertices, within their cells, and leave the connections
    moved = flexicubes(sdf, points, random_weights(32**3))
    assert is_closed_and_oriented(moved.faces.numpy())
    distance = (moved.vertices - mesh.vertices).abs().amax(1)
    assert 5e-3 < distance.max() < 1 / 32


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_no_hole_in_any_case(seed):
    """Random corners meet all 256 cases: every edge is walked as often forth as back."""
    size = 24
    field = torch.ones(size + 1, size + 1, size + 1)
    generator = torch.Generator().manual_seed(seed)
    field[1:-1, 1:-1, 1:-1] = torch.randn((size - 1,) * 3, generator=generator)
    faces = flexicubes(field.reshape(-1), lattice_points(size)).faces.numpy()
    walked = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forth, back = (np.sort(walked @ weight) for weight in ([1 << 32, 1], [1, 1 << 32]))
    assert np.array_equal(forth, back)


def test_sparse_form_is_the_dense_one():
    """The crossed cells alone, and some that are not, on points in another order."""
    size = 20
    points = lattice_points(size)
    sdf = torch.hypot(points[:, :2].norm(dim=1) - 0.3, points[:, 2]) - 0.1
    sdf = sdf + 0.02 * torch.randn(len(sdf), generator=torch.Generator().manual_seed(1))
    weights = random_weights(size**3)
    dense = flexicubes(sdf, points, weights, attributes=points)

    axis = torch.arange(size)
    cells = torch.cartesian_prod(axis, axis, axis)
    corners = cells[:, None] + torch.tensor(CORNER_OFFSETS)
    corners = (corners * torch.tensor([(size + 1) ** 2, size + 1, 1])).sum(2)
    inside = sdf[corners] < 0
    kept = inside.any(1) & ~inside.all(1)
    kept[::50] = True
    assert kept.sum() < 0.3 * len(kept)
    order = torch.randperm(len(sdf), generator=torch.Generator().manual_seed(2))
    sparse = flexicubes_cells(
        cells[kept] + torch.tensor([-900, 5, 70_000]),
        torch.argsort(order)[corners[kept]],
        sdf[order],
        points[order],
        weights[kept],
        points[order],
    )
    for name in ("vertices", "faces", "attributes"):
        assert torch.equal(getattr(sparse, name), getattr(dense, name))


def test_same_bytes_on_one_thread_and_on_two():
    points = lattice_points(34)
    sdf = torch.randn(len(points), generator=torch.Generator().manual_seed(3))
    threads, meshes = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            meshes.append(flexicubes(sdf, points, random_weights(34**3)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(meshes[0].vertices, meshes[1].vertices)
    assert torch.equal(meshes[0].faces, meshes[1].faces)


def test_lattice_numbers_lead_back_to_places():
    places = torch.tensor([[-3, 7, 900], [-3, 8, -5], [2, 7, 0], [1, 9, 900]])
    lattice = Lattice.around(places.amin(0), places.amax(0))
    keys = lattice.keys(places)
    assert torch.equal(lattice.places(keys), places)
    assert torch.equal(
        lattice.places(keys + lattice.step(1, -1, 1)), places + torch.tensor([1, -1, 1])
    )
    ordered = torch.sort(keys).values
    assert torch.equal(ordered[find(ordered, keys)], keys)
    assert (find(ordered, keys + 1) == -1).all()
    assert len(lattice.grown(ordered, 1)) == 32


def test_refuses_what_has_no_surface():
    points = lattice_points(4)
    with pytest.raises(SurfaceError, match="nowhere crossed by its zero level"):
        flexicubes(torch.ones(125), points)
    with pytest.raises(SurfaceError, match="has no faces"):
        flexicubes(torch.tensor([-1.0, 1, 1, 1, 1, 1, 1, 1]), lattice_points(1))
    with pytest.raises(ValueError, match=r"\(R \+ 1\)\^3 values with R >= 1, got \(124,\)"):
        flexicubes(torch.ones(124), points[:124])
    with pytest.raises(ValueError, match=r"fewer than 2\^62"):
        Lattice.around(torch.tensor([0, 0, 0]), torch.tensor([1 << 21] * 3))
