import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from helpers.geometry import edge_uses
from helpers.solids import cube, grid_sheet, sphere, textured_sphere

from onelook.asset.export import write_model
from onelook.asset.lay_out import has_room_for_each_face
from onelook.asset.load import JoinedMesh, join_parts, load_mesh
from onelook.asset.mesh_parts import read_parts
from onelook.asset.texture_lookup import look_up
from onelook.errors import SurfaceError
from onelook.report import Report
from trellis2_backend.dual_grid import DualGrid, dual_grid_to_mesh
from trellis2_backend.texturing import texture_mesh, voxelise

RESOLUTION = 48
MOVE = np.float32([5, -2, 1])


def paint(grid: DualGrid) -> torch.Tensor:
    """Colours that say where a voxel lies, in TRELLIS's axes; a finish of its own everywhere."""
    places = (grid.coords + 0.5) / grid.resolution
    return torch.cat([places, torch.tensor([[0.25, 0.75, 1.0]]).expand(len(places), 3)], 1)


def joined(path: Path) -> JoinedMesh:
    return join_parts(read_parts(path))


def textured(mesh: JoinedMesh, **options):
    report = Report()
    asset = texture_mesh(mesh, paint, RESOLUTION, 512, report=report, device="cpu", **options)
    return asset, report


def assert_painted(asset, mesh: JoinedMesh):
    """At the middle of every face the colour is that of the place, (x, -z, y) of the file's."""
    middle, uvs = (rows[asset.faces].mean(1) for rows in (asset.vertices, asset.uvs))
    unit = (middle - mesh.centre) / mesh.scale
    wanted = np.stack([unit[:, 0], -unit[:, 2], unit[:, 1]], 1) + 0.5
    color = look_up(asset.textures.base_color, uvs.astype(np.float32))
    assert np.abs(color[:, :3] - wanted).max() < 0.04
    factors = (asset.textures.metallic_factor, asset.textures.roughness_factor)
    assert factors == pytest.approx((0.25, 0.75), abs=1 / 255)


@pytest.fixture
def ball_file(tmp_path) -> Path:
    """A UV-mapped sphere far from the origin, three units wide, in a GLB."""
    asset = textured_sphere(24)
    write_model(
        dataclasses.replace(asset, vertices=asset.vertices * 3 + MOVE), tmp_path / "ball.glb"
    )
    return tmp_path / "ball.glb"


def test_a_mesh_keeps_its_faces_its_place_and_its_uvs(ball_file, tmp_path):
    mesh = joined(ball_file)
    asset, report = textured(mesh)
    assert report.figures["own_uvs"] is True
    assert report.figures["faces"] == len(mesh.faces) == len(asset.faces)
    before = load_mesh(ball_file)
    for name in ("vertices", "uvs"):
        old, new = getattr(before, name)[before.faces], getattr(asset, name)[asset.faces]
        assert new == pytest.approx(old, abs=1e-5), name
    assert_painted(asset, mesh)
    write_model(asset, tmp_path / "painted.glb")
    again = trimesh.load(tmp_path / "painted.glb", force="mesh")
    assert again.bounds.mean(0) == pytest.approx(MOVE, abs=1e-5)
    assert np.ptp(again.bounds, axis=0) == pytest.approx(3, rel=1e-2)


def test_a_new_atlas_where_it_is_asked_for(ball_file):
    mesh = joined(ball_file)
    asset, report = textured(mesh, keep_uvs=False)
    assert report.figures["own_uvs"] is False
    assert has_room_for_each_face(asset.vertices, asset.uvs, asset.faces)
    assert asset.vertices[asset.faces] == pytest.approx(
        mesh.placed(mesh.vertices)[mesh.faces], abs=1e-5
    )
    assert_painted(asset, mesh)


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".obj", ".glb"])
def test_files_without_uvs_get_an_atlas(suffix, tmp_path):
    vertices, faces = sphere(20)
    path = tmp_path / f"bare{suffix}"
    trimesh.Trimesh(2 * vertices + MOVE, faces, process=False).export(path)
    mesh = joined(path)
    asset, report = textured(mesh)
    assert report.figures["own_uvs"] is False and len(asset.faces) == len(faces)
    assert asset.is_closed
    assert_painted(asset, mesh)


def test_several_parts_become_one_painted_mesh(tmp_path):
    scene = trimesh.Scene()
    for number, place in enumerate([(0, 0, 0), (3, 0, 0)]):
        part = trimesh.creation.icosphere(3)
        part.visual = trimesh.visual.TextureVisuals(uv=np.random.rand(len(part.vertices), 2))
        scene.add_geometry(
            part, f"part{number}", transform=trimesh.transformations.translation_matrix(place)
        )
    scene.export(tmp_path / "two.glb")
    mesh = joined(tmp_path / "two.glb")
    assert len(mesh.parts) == 2
    asset, report = textured(mesh)
    assert report.figures["own_uvs"] is False  # each part has the whole texture to itself
    assert_painted(asset, mesh)


def test_which_uvs_are_good():
    vertices, faces = grid_sheet(8)
    uvs = vertices[:, :2] + 0.5
    good = has_room_for_each_face(vertices, uvs, faces)
    assert good and has_room_for_each_face(vertices, uvs[:, ::-1], faces)  # mirrored is as good
    folded = np.minimum(uvs, 1 - uvs)  # four times over itself
    beyond, tiny, point = uvs * 2, uvs * 0.2, uvs * 0
    sliver = np.where(uvs[:, :1] > 0.9, uvs * [1, 0], uvs)  # an eighth of the faces has no texels
    for bad in (folded, beyond, tiny, point, sliver):
        assert not has_room_for_each_face(vertices, bad, faces)


def test_a_uv_seam_is_no_border():
    """The sphere's vertices are doubled along its seam; its dual grid is that of the closed one."""
    cut, closed = textured_sphere(24), sphere(24)
    grids = [voxelise(*mesh, 40) for mesh in ((cut.vertices, cut.faces), closed)]
    coords = [{tuple(c) for c in grid.coords.tolist()} for grid in grids]
    assert len(coords[0] ^ coords[1]) < 0.01 * len(coords[0])
    assert (edge_uses(dual_grid_to_mesh(grids[0]).faces.numpy()) == 2).all()
    radius = dual_grid_to_mesh(grids[0]).vertices.norm(dim=1)
    assert radius.min() > 0.5 - 0.005  # no border pulls at it


def test_up_is_z_and_the_front_is_minus_y_on_the_grid():
    """A cube with a peg on its top and one on its front, in glTF's axes."""
    block = trimesh.Trimesh(*cube())
    pegs = [trimesh.creation.box((0.1, 0.1, 0.5)).apply_translation((0, 0, 0.5)),
            trimesh.creation.box((0.1, 0.9, 0.1)).apply_translation((0, 0.5, 0))]  # fmt: skip
    mesh = trimesh.util.concatenate([block, *pegs])
    vertices = mesh.vertices - mesh.bounds.mean(0)
    unit = (vertices / np.ptp(mesh.bounds, axis=0).max()).astype(np.float32)
    coords = voxelise(unit, mesh.faces, 60).coords
    assert np.ptp(coords.numpy(), axis=0).argmax() == 2
    top, front = coords[coords[:, 2] > 55], coords[coords[:, 1] == coords[:, 1].min()]
    assert (top[:, 0] - 30).abs().max() < 8  # only the peg reaches so high
    assert (front[:, 0] - 30).abs().max() < 8


def test_a_mesh_too_small_for_the_grid_is_refused():
    needle = np.float32([[0, -0.5, 0], [1e-6, 0.5, 0], [0, 0.5, 1e-6]]) + np.float32(0.01)
    mesh = JoinedMesh(needle, np.int32([[0, 1, 2]]), [], np.zeros(3), 1.0)
    with pytest.raises(SurfaceError, match="crosses no edge"):
        texture_mesh(mesh, paint, 16, 64, report=Report(), device="cpu")
