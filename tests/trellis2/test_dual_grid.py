import numpy as np
import pytest
import torch
from helpers.geometry import edge_uses, euler_characteristic, signed_volume
from made_dual_grid import made_dual_grid, torus_shell

from onelook.asset.clean import clean
from onelook.errors import SurfaceError
from trellis2_backend.dual_grid import QUAD_STEPS, DualGrid, DualGridMesh, dual_grid_to_mesh


def ball(points):
    return np.linalg.norm(points - np.float32([0.02, -0.03, 0.01]), axis=1) - np.float32(0.4)


def as_dual_grid(made, order=None, weighted: bool = True) -> DualGrid:
    order = np.arange(len(made.coords)) if order is None else order
    arrays = (made.coords, made.offsets, made.intersected, made.split_weight)
    coords, offsets, intersected, weight = (torch.from_numpy(array[order]) for array in arrays)
    return DualGrid(coords, offsets, intersected, made.resolution, weight if weighted else None)


def triangles(mesh: DualGridMesh) -> set:
    """Faces by position, each from its lowest corner on."""
    corners = mesh.vertices[mesh.faces.long()].numpy()
    faces = [[tuple(point) for point in face] for face in corners.tolist()]
    return {tuple(f[(k := f.index(min(f))) :] + f[:k]) for f in faces}


def test_reference_meshes(load_case):
    case = load_case("trellis2/fdg_to_mesh")
    close = {"rtol": case.info["rtol"], "atol": case.info["atol"]}
    for name, config in case.info["config"].items():
        coords, offsets, flags, weight, vertices, faces, unweighted = (
            torch.from_numpy(case.arrays[f"{name}.{key}"])
            for key in ("coords", "dual", "intersected", "split_weight", "vertices", "faces",
                        "faces_no_weight")
        )  # fmt: skip
        grid = DualGrid(coords, offsets, flags, config["grid_size"], weight[:, 0])
        mesh = dual_grid_to_mesh(grid)
        torch.testing.assert_close(mesh.vertices, vertices, **close)
        assert torch.equal(mesh.faces, faces), name
        plain = DualGrid(coords, offsets, flags, config["grid_size"])
        assert torch.equal(dual_grid_to_mesh(plain).faces, unweighted), name


@pytest.mark.parametrize("weighted", [True, False])
def test_any_voxels_in_any_order_against_the_obvious_way(weighted):
    """Random voxels up to the border of the grid, where a wrapped number would find a stranger."""
    rng = np.random.default_rng(5)
    cells = rng.permutation(9**3)[:450]
    coords = np.stack(np.unravel_index(cells, (9, 9, 9)), 1).astype(np.int32)
    flags = rng.random((450, 3)) < 0.4
    weight = rng.uniform(0.1, 2, 450).astype(np.float32)
    grid = DualGrid(
        torch.from_numpy(coords),
        torch.from_numpy(rng.random((450, 3), np.float32)),
        torch.from_numpy(flags),
        9,
        torch.from_numpy(weight) if weighted else None,
    )
    row_of = {tuple(c): i for i, c in enumerate(coords.tolist())}
    wanted = []
    for row, c in enumerate(coords.tolist()):
        for axis in range(3):
            around = [tuple(np.add(c, step).tolist()) for step in QUAD_STEPS[axis]]
            if not flags[row, axis] or not all(place in row_of for place in around):
                continue
            a, b, c_, d = (row_of[place] for place in around)
            if not weighted or weight[a] * weight[c_] > weight[b] * weight[d]:
                wanted += [[a, b, c_], [a, c_, d]]
            else:
                wanted += [[a, b, d], [d, b, c_]]
    assert len(wanted) > 50
    assert dual_grid_to_mesh(grid).faces.tolist() == wanted


def test_a_ball_is_closed_and_the_order_of_voxels_does_not_matter():
    made = made_dual_grid(ball, 40)
    mesh = dual_grid_to_mesh(as_dual_grid(made))
    faces = mesh.faces.numpy()
    assert (edge_uses(faces) == 2).all()
    assert euler_characteristic(mesh.vertices.numpy(), faces) == 2
    distance = np.abs(ball(mesh.vertices.numpy()))
    assert distance.max() < 0.1 / 40
    order = np.random.default_rng(3).permutation(len(made.coords))
    assert triangles(dual_grid_to_mesh(as_dual_grid(made, order))) == triangles(mesh)


def test_winding_is_arbitrary_and_cleaning_makes_it_agree():
    """Flags carry no direction: the asset pipeline turns neighbours to agree, and outward."""
    mesh = dual_grid_to_mesh(as_dual_grid(made_dual_grid(ball, 40)))
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    assert abs(signed_volume(vertices, faces)) < 0.1
    sound = clean(vertices, faces)
    assert sound.is_closed
    wanted = 4 / 3 * np.pi * 0.4**3
    assert signed_volume(sound.vertices, sound.faces) == pytest.approx(wanted, rel=0.01)


def test_a_shell_has_an_inner_and_an_outer_skin():
    made = made_dual_grid(torus_shell(wall=0.06), 64, 1.1)
    mesh = dual_grid_to_mesh(as_dual_grid(made))
    assert (edge_uses(mesh.faces.numpy()) == 2).all()
    assert euler_characteristic(mesh.vertices.numpy(), mesh.faces.numpy()) == 0  # two tori


def test_voxels_without_a_surface_are_refused():
    lonely = DualGrid(
        torch.tensor([[1, 1, 1], [5, 5, 5]]), torch.rand(2, 3), torch.ones(2, 3).bool(), 8
    )
    with pytest.raises(SurfaceError, match="2 decoded voxels have no surface"):
        dual_grid_to_mesh(lonely)
    empty = DualGrid(torch.empty(0, 3).int(), torch.empty(0, 3), torch.empty(0, 3).bool(), 8)
    with pytest.raises(SurfaceError, match="0 decoded voxels"):
        dual_grid_to_mesh(empty)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_same_bytes():
    grid = as_dual_grid(made_dual_grid(torus_shell(), 128, 1.1))
    on_gpu = DualGrid(
        grid.coords.cuda(),
        grid.offsets.cuda(),
        grid.intersected.cuda(),
        grid.resolution,
        grid.split_weight.cuda(),
    )
    mesh, there = dual_grid_to_mesh(grid), dual_grid_to_mesh(on_gpu)
    assert torch.equal(mesh.faces, there.faces.cpu())
    assert torch.equal(mesh.vertices, there.vertices.cpu())
