"""Draco geometry in GLB: what a decoder gets is the asset, within the rounding that is promised."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

import numpy as np
import pytest
import trimesh
from helpers.gltf_check import khronos_issues, read_glb
from helpers.solids import textured_sphere
from scipy.spatial import cKDTree

from onelook.asset.draco import POSITION_BITS, UV_BITS, encode_draco
from onelook.asset.gltf import write_glb
from onelook.errors import OptionError

DracoPy = pytest.importorskip("DracoPy")
NAME = "KHR_draco_mesh_compression"


@pytest.fixture
def asset():
    asset = textured_sphere()
    flat = np.full((64, 64, 3), (128, 128, 255), np.uint8)
    return dataclasses.replace(asset, textures=dataclasses.replace(asset.textures, normal=flat))


def decoded(path):
    """-> the document, Draco's mesh, and its attributes by glTF name."""
    document, binary = read_glb(path)
    extension = document["meshes"][0]["primitives"][0]["extensions"][NAME]
    view = document["bufferViews"][extension["bufferView"]]
    mesh = DracoPy.decode(binary[view["byteOffset"] :][: view["byteLength"]])
    by_id = {entry["unique_id"]: entry["data"] for entry in mesh.attributes}
    return document, mesh, {name: by_id[i] for name, i in extension["attributes"].items()}


def test_decoded_mesh_is_the_asset_within_the_rounding(asset, tmp_path):
    write_glb(asset, tmp_path / "a.glb", compression="draco")
    _, mesh, columns = decoded(tmp_path / "a.glb")
    assert set(columns) == {"POSITION", "NORMAL", "TEXCOORD_0", "TANGENT"}
    # corners are matched by place and UV together, for both sides of a seam have one place
    step, uv_step = 1 / (2**POSITION_BITS - 1), 1 / (2**UV_BITS - 1)
    found = np.concatenate([columns["POSITION"], columns["TEXCOORD_0"]], axis=1)[mesh.faces]
    sent = np.concatenate([asset.vertices, asset.uvs], axis=1)[asset.faces]
    distance, match = cKDTree(sent.mean(1)).query(found.mean(1))
    assert distance.max() < 2 * step and len(np.unique(match)) == len(asset.faces)
    turns = np.stack([np.roll(sent[match], k, axis=1) for k in range(3)])  # winding is kept
    turn = np.abs(turns - found).max((2, 3)).argmin(0)
    gap = np.abs(turns[turn, np.arange(len(found))] - found)
    assert gap[..., :3].max() <= 0.51 * step and gap[..., 3:].max() <= 0.51 * uv_step
    normals = np.stack([np.roll(asset.normals[asset.faces][match], k, axis=1) for k in range(3)])
    cosines = (normals[turn, np.arange(len(found))] * columns["NORMAL"][mesh.faces]).sum(-1)
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 0.3


def test_accessors_announce_what_the_decoder_gives(asset, tmp_path):
    write_glb(asset, tmp_path / "a.glb", compression="draco")
    document, mesh, columns = decoded(tmp_path / "a.glb")
    primitive = document["meshes"][0]["primitives"][0]
    for name, index in primitive["attributes"].items():
        accessor = document["accessors"][index]
        assert "bufferView" not in accessor
        assert accessor["count"] == len(mesh.points)
        assert accessor["type"] == f"VEC{columns[name].shape[1]}"
    position = document["accessors"][primitive["attributes"]["POSITION"]]
    assert np.array_equal(np.float32(position["min"]), mesh.points.min(0))
    assert np.array_equal(np.float32(position["max"]), mesh.points.max(0))
    assert document["accessors"][primitive["indices"]]["count"] == mesh.faces.size
    assert NAME in document["extensionsUsed"] and NAME in document["extensionsRequired"]


def test_trimesh_reads_it_closed_and_textured(asset, tmp_path):
    write_glb(asset, tmp_path / "a.glb", compression="draco")
    mesh = trimesh.load_mesh(tmp_path / "a.glb", process=False)
    assert mesh.volume == pytest.approx(0.5, abs=0.03)
    assert mesh.visual.uv.shape == (len(mesh.vertices), 2)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight


def test_it_is_much_smaller_and_the_same_each_time(tmp_path):
    asset = textured_sphere(rings=100, texture_size=8)
    for name, compression in (("plain", "none"), ("a", "draco"), ("b", "draco")):
        write_glb(asset, tmp_path / name, compression=compression)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size < 0.12 * (tmp_path / "plain").stat().st_size


def test_khronos_validator_only_says_that_it_cannot_look_inside(asset, tmp_path):
    write_glb(asset, tmp_path / "a.glb", compression="draco", texture_format="webp")
    issues = khronos_issues(tmp_path / "a.glb")
    if issues is None:
        pytest.skip("node or gltf-validator is not installed (npm install)")
    document, _ = read_glb(tmp_path / "a.glb")
    view = document["meshes"][0]["primitives"][0]["extensions"][NAME]["bufferView"]
    said = {(issue["code"], issue["pointer"]) for issue in issues[str(tmp_path / "a.glb")]}
    assert said == {
        ("UNSUPPORTED_EXTENSION", "/extensionsUsed/1"),
        ("UNUSED_OBJECT", f"/bufferViews/{view}"),  # by what it understands
    }


def test_missing_library_is_told_with_the_remedy(asset, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "DracoPy" else find_spec(name)
    )
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(OptionError, match=r"pip install 'onelook\[draco\]'"):
        write_glb(asset, tmp_path / "a.glb", compression="draco")
    with pytest.raises(OptionError, match=r"pip install 'onelook\[draco\]'"):
        encode_draco(asset.vertices, asset.normals, asset.uvs, asset.faces)
    assert not list(tmp_path.iterdir())


def test_unknown_compression_is_refused(asset, tmp_path):
    with pytest.raises(OptionError, match="none or draco, got 'zip'"):
        write_glb(asset, tmp_path / "a.glb", compression="zip")
