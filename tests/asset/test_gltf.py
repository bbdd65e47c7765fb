"""GLB files: what is written is what is read back, and what the format demands."""

from __future__ import annotations

import dataclasses
import errno
import os

import numpy as np
import pytest
import trimesh
from helpers.gltf_check import check_glb, khronos_issues
from helpers.solids import grid_sheet, textured_sphere

from onelook import files
from onelook.asset.asset import Asset, Textures
from onelook.asset.gltf import write_glb
from onelook.errors import OptionError, OutputError, SurfaceError
from onelook.files import told_as_output_errors


@pytest.fixture
def full_asset() -> Asset:
    """A sphere with all three textures and alpha."""
    asset = textured_sphere(texture_size=64)
    rng = np.random.default_rng(3)
    base_color = asset.textures.base_color.copy()
    base_color[..., 3] = rng.integers(0, 256, (64, 64))
    textures = Textures(
        base_color=base_color,
        metallic_roughness=rng.integers(0, 256, (64, 64, 2)).astype(np.uint8),
        normal=np.full((64, 64, 3), (128, 128, 255), np.uint8),
    )
    return dataclasses.replace(asset, textures=textures, alpha_mode="BLEND", is_closed=False)


def test_glb_holds_exactly_the_asset(tmp_path):
    asset = textured_sphere()
    write_glb(asset, tmp_path / "a.glb")
    glb = check_glb(tmp_path / "a.glb")
    assert np.array_equal(glb.vertices, asset.vertices)
    assert np.array_equal(glb.uvs, asset.uvs)
    assert np.array_equal(glb.faces, asset.faces)
    assert np.abs(glb.normals - asset.normals).max() < 1e-6
    assert np.array_equal(glb.images["base_color"], asset.textures.base_color[..., :3])
    assert glb.is_closed
    assert "doubleSided" not in glb.material and "alphaMode" not in glb.material


def test_textures_are_packed_as_gltf_wants_them(full_asset, tmp_path):
    write_glb(full_asset, tmp_path / "a.glb")
    glb = check_glb(tmp_path / "a.glb")
    packed = glb.images["metallic_roughness"]
    assert np.array_equal(packed[..., 1], full_asset.textures.metallic_roughness[..., 1])  # rough
    assert np.array_equal(packed[..., 2], full_asset.textures.metallic_roughness[..., 0])  # metal
    assert np.array_equal(glb.images["base_color"], full_asset.textures.base_color)  # with alpha
    assert np.array_equal(glb.images["normal"], full_asset.textures.normal)
    assert glb.material["alphaMode"] == "BLEND" and glb.material["doubleSided"]
    surface = glb.material["pbrMetallicRoughness"]
    assert surface["metallicFactor"] == surface["roughnessFactor"] == 1


def test_tangents_run_along_u_and_bitangents_up_the_image(full_asset, tmp_path):
    write_glb(full_asset, tmp_path / "a.glb")
    glb = check_glb(tmp_path / "a.glb")
    phi = 2 * np.pi * glb.uvs[:, 0]
    east = np.stack([np.cos(phi), np.zeros_like(phi), -np.sin(phi)], 1)  # u grows eastward
    bitangents = np.cross(glb.normals, glb.tangents[:, :3]) * glb.tangents[:, 3:]
    away_from_poles = np.abs(glb.normals[:, 1]) < 0.9
    assert (glb.tangents[:, :3] * east).sum(1)[away_from_poles].min() > 0.99
    assert bitangents[away_from_poles, 1].min() > 0.4  # north, where row 0 of the image is


def test_factors_stand_for_constant_materials(tmp_path):
    textures = Textures(
        textured_sphere().textures.base_color, metallic_factor=0.25, roughness_factor=0.5
    )
    write_glb(textured_sphere(textures=textures), tmp_path / "a.glb")
    surface = check_glb(tmp_path / "a.glb").material["pbrMetallicRoughness"]
    assert (surface["metallicFactor"], surface["roughnessFactor"]) == (0.25, 0.5)
    assert "metallicRoughnessTexture" not in surface


@pytest.mark.parametrize("vertex_count, kind", [(65535, 5123), (65536, 5125)])
def test_indices_are_as_short_as_they_can_be(tmp_path, vertex_count, kind):
    asset = textured_sphere()
    missing = vertex_count - len(asset.vertices)

    def grown(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])

    grown_asset = dataclasses.replace(
        asset,
        vertices=grown(asset.vertices),
        normals=grown(asset.normals),
        uvs=grown(asset.uvs),
        faces=np.where(asset.faces == len(asset.vertices) - 2, vertex_count - 1, asset.faces),
    )
    write_glb(grown_asset, tmp_path / "a.glb")
    glb = check_glb(tmp_path / "a.glb")
    accessor = glb.document["meshes"][0]["primitives"][0]["indices"]
    assert glb.document["accessors"][accessor]["componentType"] == kind
    assert np.array_equal(glb.faces, grown_asset.faces)


def test_trimesh_reads_back_positions_winding_uvs_and_colours(tmp_path):
    asset = textured_sphere()
    write_glb(asset, tmp_path / "a.glb")
    scene = trimesh.load_scene(tmp_path / "a.glb", process=False)
    (mesh,) = scene.dump()
    assert np.array_equal(mesh.vertices.astype(np.float32), asset.vertices)
    assert np.array_equal(mesh.faces, asset.faces)
    assert mesh.volume > 0.5  # outward
    assert np.allclose(mesh.visual.uv, asset.uvs * (1, -1) + (0, 1))  # trimesh counts v from below
    image = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    assert np.array_equal(image, asset.textures.base_color[..., :3])


@pytest.mark.parametrize("texture_format", ["png", "jpeg", "webp"])
def test_khronos_validator_finds_nothing(full_asset, tmp_path, texture_format):
    sheet_vertices, sheet_faces = grid_sheet(4)
    sheet = Asset(
        vertices=sheet_vertices,
        normals=np.zeros_like(sheet_vertices),  # repaired on the way
        uvs=sheet_vertices[:, :2] + 0.5,
        faces=np.concatenate([sheet_faces, [[0, 0, 1]]]).astype(np.int32),
        textures=textured_sphere().textures,
        is_closed=False,
        alpha_mode="MASK",
        extras={"model": "relief", "seed": 42, "note": 'Ünï"code'},
    )
    assets = {"closed": textured_sphere(), "full": full_asset, "sheet": sheet}
    paths = [tmp_path / f"{name}.glb" for name in assets]
    for path, asset in zip(paths, assets.values(), strict=True):
        write_glb(asset, path, texture_format=texture_format)
        check_glb(path)
    issues = khronos_issues(*paths)
    if issues is None:
        pytest.skip("node or gltf-validator is not installed (npm install)")
    assert issues == {str(path): [] for path in paths}


@pytest.mark.parametrize("texture_format, tolerance", [("jpeg", 12), ("webp", 12)])
def test_lossy_textures_stay_close(tmp_path, texture_format, tolerance):
    asset = textured_sphere(texture_size=256)
    write_glb(asset, tmp_path / "a.glb", texture_format=texture_format)
    image = check_glb(tmp_path / "a.glb").images["base_color"]
    assert np.abs(image.astype(int) - asset.textures.base_color[..., :3]).mean() < tolerance / 4
    assert np.abs(image.astype(int) - asset.textures.base_color[..., :3]).max() <= tolerance


def test_extras_say_how_the_asset_was_made(tmp_path):
    asset = textured_sphere(extras={"model": "relief", "seed": 7})
    write_glb(asset, tmp_path / "a.glb", extras={"options": {"texture_size": 64}})
    document = check_glb(tmp_path / "a.glb").document
    assert document["asset"]["extras"] == {
        "model": "relief",
        "seed": 7,
        "options": {"texture_size": 64},
    }
    assert document["asset"]["generator"].startswith("onelook ")


def test_same_asset_same_bytes(full_asset, tmp_path):
    write_glb(full_asset, tmp_path / "a.glb")
    write_glb(full_asset, tmp_path / "b.glb")
    assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()


def test_missing_folder_is_refused_without_naming_it(tmp_path):
    with pytest.raises(OutputError, match="output folder cannot be written") as caught:
        write_glb(textured_sphere(), tmp_path / "nowhere" / "a.glb")
    assert str(tmp_path) not in str(caught.value)


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.glb"
    path.write_bytes(b"old")

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OutputError, match="disk of the output folder is full"):
        write_glb(textured_sphere(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.glb"]
    assert path.read_bytes() == b"old"


def test_real_full_device_is_refused():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(OutputError, match="disk of the output folder is full"),
        told_as_output_errors(),
        open("/dev/full", "wb") as file,
    ):
        file.write(bytes(1 << 16))


def test_empty_asset_and_unknown_format_are_refused(tmp_path):
    asset = textured_sphere()
    with pytest.raises(SurfaceError, match="no faces"):
        write_glb(dataclasses.replace(asset, faces=asset.faces[:0]), tmp_path / "a.glb")
    with pytest.raises(OptionError, match="png, jpeg, webp"):
        write_glb(asset, tmp_path / "a.glb", texture_format="bmp")
    assert not list(tmp_path.iterdir())
