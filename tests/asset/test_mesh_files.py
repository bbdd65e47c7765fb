"""OBJ, PLY and STL: an independent reader finds the asset in them again."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from helpers.solids import edge_uses, textured_sphere, volume

from onelook import files
from onelook.asset.asset import Asset, Textures
from onelook.asset.export import MODEL_SUFFIXES, write_model
from onelook.asset.texture_lookup import look_up
from onelook.errors import OptionError, OutputError, SurfaceError

FORMATS = sorted(set(MODEL_SUFFIXES) - {"glb"})


@pytest.fixture
def asset() -> Asset:
    return textured_sphere()


@pytest.fixture
def full_asset(asset) -> Asset:
    """With every texture there is."""
    rng = np.random.default_rng(5)
    base_color = asset.textures.base_color.copy()
    base_color[..., 3] = rng.integers(0, 256, (64, 64))
    textures = Textures(
        base_color=base_color,
        metallic_roughness=rng.integers(0, 256, (64, 64, 2)).astype(np.uint8),
        normal=np.full((64, 64, 3), (128, 128, 255), np.uint8),
    )
    return dataclasses.replace(asset, textures=textures, alpha_mode="BLEND")


def unzipped(asset: Asset, folder: Path) -> Path:
    """The folder with what `format` obj packs into its ZIP."""
    write_model(asset, folder / "a.zip", format="obj")
    with zipfile.ZipFile(folder / "a.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(folder / "a")
    return folder / "a"


def test_trimesh_reads_the_obj_with_shape_uvs_and_texture(asset, tmp_path):
    mesh = trimesh.load_mesh(unzipped(asset, tmp_path) / "model.obj", process=False)
    corners = np.asarray(mesh.vertices, np.float32)[mesh.faces]
    assert np.array_equal(corners, asset.vertices[asset.faces])  # exactly, and the same winding
    uvs = asset.uvs[asset.faces] * (1, -1) + (0, 1)  # v counts from below
    assert np.abs(mesh.visual.uv[mesh.faces] - uvs).max() < 1e-6
    image = np.asarray(mesh.visual.material.image.convert("RGB"))
    assert np.array_equal(image, asset.textures.base_color[..., :3])


def test_obj_is_not_cut_along_uv_seams(asset, tmp_path):
    lines = (unzipped(asset, tmp_path) / "model.obj").read_text().splitlines()
    positions = [line.split()[1:] for line in lines if line.startswith("v ")]
    corners = [[c.split("/") for c in line.split()[1:]] for line in lines if line.startswith("f ")]
    place, _, normal = np.moveaxis(np.array(corners, int) - 1, 2, 0)
    assert len(positions) < len(asset.vertices)
    assert (edge_uses(place) == 2).all()
    assert volume(np.float32(positions), place) == pytest.approx(
        volume(asset.vertices, asset.faces), rel=1e-5
    )
    normals = np.float32([line.split()[1:] for line in lines if line.startswith("vn ")])
    assert np.abs(normals[normal] - asset.normals[asset.faces]).max() < 1e-5


def test_material_names_every_texture_and_factor(full_asset, tmp_path):
    folder = unzipped(full_asset, tmp_path)
    lines = (folder / "model.mtl").read_text().splitlines()
    keys = dict(line.split(maxsplit=1) for line in lines if not line.startswith("#"))
    assert {name for name in keys.values() if name.endswith(".png")} == {
        path.name for path in folder.glob("*.png")
    }
    textures = full_asset.textures
    expected = {
        "map_Kd": textures.base_color[..., 2::-1],  # OpenCV reads blue first
        "map_d": textures.base_color[..., 3],
        "map_Pm": textures.metallic_roughness[..., 0],
        "map_Pr": textures.metallic_roughness[..., 1],
        "norm": textures.normal[..., ::-1],
    }
    for key, image in expected.items():
        read = cv2.imread(str(folder / keys[key]), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(read, image), key
    assert (keys["Pm"], keys["Pr"]) == ("1", "1")


def test_material_without_textures_has_the_factors(asset, tmp_path):
    plain = dataclasses.replace(asset.textures, metallic_factor=0.25, roughness_factor=0.5)
    folder = unzipped(dataclasses.replace(asset, textures=plain), tmp_path)
    assert "Pm 0.25\nPr 0.5\nmap_Kd base_color.png\n" in (folder / "model.mtl").read_text()
    assert sorted(p.name for p in folder.iterdir()) == ["base_color.png", "model.mtl", "model.obj"]


def test_ply_carries_positions_normals_uvs_and_the_textures_colours(asset, tmp_path):
    write_model(asset, tmp_path / "a.ply", format="ply")
    mesh = trimesh.load_mesh(tmp_path / "a.ply", process=False, fix_texture=False)
    raw = mesh.metadata["_ply_raw"]["vertex"]["data"]

    def columns(*names: str) -> np.ndarray:
        return np.stack([raw[name] for name in names], axis=1)

    assert np.array_equal(columns("x", "y", "z"), asset.vertices)
    assert np.array_equal(columns("nx", "ny", "nz"), asset.normals)
    assert np.abs(columns("s", "t") - asset.uvs * (1, -1) - (0, 1)).max() < 1e-6
    assert np.array_equal(mesh.faces, asset.faces) and mesh.volume > 0.5
    colors = columns("red", "green", "blue", "alpha")
    u, v = np.clip(asset.uvs * 64 - 0.5, 0, 63).T  # the texture is linear in both
    assert np.abs(colors[:, 0] - v * 255 / 63).max() < 2
    assert np.abs(colors[:, 1] - u * 255 / 63).max() < 2
    assert (colors[:, 3] == 255).all()


def test_stl_has_the_shape(asset, tmp_path):
    write_model(asset, tmp_path / "a.stl", format="stl")
    assert (tmp_path / "a.stl").stat().st_size == 84 + 50 * len(asset.faces)
    mesh = trimesh.load_mesh(tmp_path / "a.stl", process=False)
    assert np.array_equal(mesh.triangles.astype(np.float32), asset.vertices[asset.faces])
    stored = np.frombuffer((tmp_path / "a.stl").read_bytes()[84:], np.uint8).reshape(-1, 50)
    normals = np.ascontiguousarray(stored[:, :12]).view("<f4")
    assert np.abs(normals - mesh.face_normals).max() < 1e-4


def test_texture_is_blended_between_texels_and_goes_on_outside():
    image = np.array([[[0], [100]], [[200], [40]]], np.uint8)
    uvs = np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.25], [0.5, 0.5], [0, 0], [2, -1]])
    held = 255 * look_up(image, uvs, repeat=False)[:, 0]
    assert held.tolist() == pytest.approx([0, 100, 50, 85, 0, 100])
    again = 255 * look_up(image, uvs + (3, -2))[:, 0]
    assert again.tolist() == pytest.approx([0, 100, 50, 85, 85, 85])


@pytest.mark.parametrize("format", FORMATS)
def test_same_asset_same_bytes(full_asset, tmp_path, format):
    for name in ("a", "b"):
        write_model(full_asset, tmp_path / name, format=format)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_failure_leaves_nothing(asset, tmp_path, monkeypatch, format):
    with pytest.raises(SurfaceError, match="no faces"):
        empty = dataclasses.replace(asset, faces=asset.faces[:0])
        write_model(empty, tmp_path / "a", format=format)

    def refuse(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        write_model(asset, tmp_path / "a", format=format)
    assert not list(tmp_path.iterdir())


def test_unknown_format_is_refused(asset, tmp_path):
    with pytest.raises(OptionError, match="glb, obj, ply, stl, got 'fbx'"):
        write_model(asset, tmp_path / "a.fbx", format="fbx")
