import itertools

import numpy as np
import pytest
import torch
from helpers.geometry import edge_uses
from helpers.solids import cube, grid_sheet, sphere
from scipy.optimize import lsq_linear

from onelook.errors import SurfaceError
from trellis2_backend.dual_grid import dual_grid_to_mesh
from trellis2_backend.mesh_to_dual_grid import mesh_to_dual_grid
from trellis2_backend.quadrics import line_quadrics, lowest_points, plane_quadrics
from trellis2_backend.triangle_voxels import line_crossings, segment_voxels, touching_voxels


def test_reference_dual_grids(load_case):
    case = load_case("trellis2/mesh_to_fdg")
    for name, config in case.info["config"].items():
        vertices, faces, coords, offsets, flags, mesh_faces = (
            case.arrays[f"{name}.{key}"]
            for key in ("vertices", "in_faces", "coords", "offset", "intersected", "mesh_faces")
        )
        grid = mesh_to_dual_grid(vertices, faces, config["resolution"])
        assert np.array_equal(grid.coords.numpy(), coords[:, 1:]), name
        assert np.array_equal(grid.intersected.numpy(), flags), name
        assert np.array_equal(dual_grid_to_mesh(grid).faces.numpy(), mesh_faces), name
        allowed = case.info["atol"] + case.info["rtol"] * np.abs(offsets)
        off = (np.abs(grid.offsets.numpy() - offsets) > allowed).any(1)
        assert off.mean() <= 0.01, name  # the original solves in float32


def clipped_area(triangle: np.ndarray, low: np.ndarray) -> bool:
    """Whether a triangle reaches into the unit cube at `low`: what is left of it after six cuts."""
    polygon = triangle
    for axis, (side, plane) in itertools.product(range(3), ((1, 0), (-1, 1))):
        height = side * (polygon[:, axis] - low[axis] - plane)
        kept = []
        for i in range(len(polygon)):
            j = (i + 1) % len(polygon)
            if height[i] >= 0:
                kept.append(polygon[i])
            if (height[i] >= 0) != (height[j] >= 0):
                share = height[i] / (height[i] - height[j])
                kept.append(polygon[i] + share * (polygon[j] - polygon[i]))
        polygon = np.array(kept).reshape(-1, 3)
        if not len(polygon):
            return False
    return True


def test_triangles_of_any_size_touch_what_clipping_finds():
    rng = np.random.default_rng(0)
    centres = rng.uniform(1, 9, (24, 1, 3))
    corners = centres + rng.normal(size=(24, 3, 3)) * np.geomspace(0.05, 4, 24)[:, None, None]
    face, coords = touching_voxels(corners, 10)
    found = {(f, *c) for f, c in zip(face.tolist(), coords.tolist(), strict=True)}
    assert len(found) == len(face)
    wanted = {
        (f, x, y, z)
        for f, (x, y, z) in itertools.product(range(24), itertools.product(range(10), repeat=3))
        if clipped_area(corners[f], np.array([x, y, z]))
    }
    assert found == wanted


def test_segments_pass_the_voxels_of_their_points():
    rng = np.random.default_rng(1)
    segments = rng.uniform(-2, 14, (40, 2, 3))
    edge, coords = segment_voxels(segments, 12)
    found = {(e, *c) for e, c in zip(edge.tolist(), coords.tolist(), strict=True)}
    share = np.linspace(0, 1, 20_001)[:, None]
    wanted = set()
    for number, (start, end) in enumerate(segments):
        voxels = np.unique(np.floor(start + share * (end - start)).astype(int), axis=0)
        inside = ((voxels >= 0) & (voxels < 12)).all(1)
        wanted |= {(number, *voxel) for voxel in voxels[inside].tolist()}
    assert wanted <= found
    assert len(found - wanted) < 0.02 * len(found)  # corners that the steps jumped over


def test_neighbouring_triangles_share_no_crossing_and_leave_none_out():
    """A sheet of triangles over the whole grid crosses every line along z exactly once."""
    vertices, faces = grid_sheet(7, size=8)
    turned = vertices @ np.array([[1, 0, 0.2], [0, 1, 0.3], [0, 0, 1]]) + 4
    crossings = line_crossings(turned[faces].astype(np.float64), np.arange(1.0, 9))
    along_z = crossings.axis == 2
    lines = crossings.voxel[along_z][:, :2]
    assert len(np.unique(lines, axis=0)) == len(lines) == 7 * 7
    height = 4 + (crossings.point[:, 0] - 4) * 0.2 + (crossings.point[:, 1] - 4) * 0.3
    assert crossings.point[:, 2] == pytest.approx(height, abs=1e-6)


def test_lowest_points_are_those_of_bounded_least_squares():
    rng = np.random.default_rng(2)
    quadrics, means, wanted = [], [], []
    coords = rng.integers(0, 50, (60, 3))
    for low in coords:
        planes = low + rng.normal(0.5, 1, (3, 3, 3))
        segment = low + rng.normal(0.5, 0.5, (1, 2, 3))
        mean = low + rng.random(3)
        quadrics.append(plane_quadrics(planes).sum(0) + 0.2 * line_quadrics(segment)[0])
        means.append(mean)
        normals = np.cross(planes[:, 1] - planes[:, 0], planes[:, 2] - planes[:, 1])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        along = segment[0, 1] - segment[0, 0]
        across = np.eye(3) - np.outer(along, along) / (along @ along)
        rows = [normals, np.sqrt(0.2) * across, np.sqrt(0.05) * np.eye(3)]
        sides = [
            np.einsum("ij,ij->i", normals, planes[:, 0]),
            np.sqrt(0.2) * across @ segment[0, 0],
            np.sqrt(0.05) * mean,
        ]
        solved = lsq_linear(np.concatenate(rows), np.concatenate(sides), (low, low + 1), tol=1e-12)
        wanted.append(solved.x - low)
    got = lowest_points(np.array(quadrics), np.array(means), np.full(60, 0.05), coords)
    assert got == pytest.approx(np.array(wanted), abs=1e-4)
    held = ((got == 0) | (got == 1)).sum(1)
    assert (np.bincount(held, minlength=4) > 0).all()  # free, faces, edges and corners all occur


@pytest.mark.parametrize("resolution", [24, 50])
def test_a_ball_comes_back_as_a_closed_mesh_on_the_surface(resolution):
    vertices, faces = sphere(24, 0.45)
    mesh = dual_grid_to_mesh(mesh_to_dual_grid(vertices, faces, resolution))
    assert (edge_uses(mesh.faces.numpy()) == 2).all()
    used = mesh.vertices[mesh.faces.long().unique()].norm(dim=1)
    assert ((used > 0.45 - 0.004) & (used < 0.45 + 0.001)).all()


def test_the_corners_of_a_box_stay_sharp():
    """A mean of crossings would cut them; the planes' quadrics do not."""
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    corners = 0.5 * cube()[0] @ turn
    grid = mesh_to_dual_grid(corners, cube()[1], 32)
    vertices = dual_grid_to_mesh(grid).vertices
    nearest = torch.cdist(torch.from_numpy(corners).double(), vertices.double()).amin(1)
    assert (nearest < 0.1 / 32).all()


def test_the_border_of_a_sheet_pulls_the_mesh_out_to_it():
    vertices, faces = grid_sheet(4, size=0.63)
    tilted = vertices @ np.array([[1, 0, 0.1], [0, 1, 0.2], [0, 0, 1]])
    mesh = dual_grid_to_mesh(mesh_to_dual_grid(tilted, faces, 20))
    reach = mesh.vertices[mesh.faces.long().unique()].abs().amax(0)
    assert (reach[:2] > 0.315 - 0.2 / 20).all()


def test_a_mesh_between_the_grid_lines_is_refused():
    speck = np.array([[0.01, 0.01, 0.01], [0.02, 0.01, 0.01], [0.01, 0.02, 0.01]])
    with pytest.raises(SurfaceError, match=r"crosses no edge of a grid of 8\^3 voxels"):
        mesh_to_dual_grid(speck, np.array([[0, 1, 2]]), 8)
