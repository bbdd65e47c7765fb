"""Mesh files of every kind become assets that look as the files say."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from helpers.solids import cube, textured_sphere
from PIL import Image
from trimesh.visual.material import PBRMaterial

from onelook.asset.asset import Asset, Textures
from onelook.asset.creases import corner_normals
from onelook.asset.export import write_model
from onelook.asset.load import fitted, load_glb, load_mesh
from onelook.asset.mesh_parts import read_parts
from onelook.asset.texture_lookup import look_up
from onelook.errors import SurfaceError


def color_at(asset: Asset, point) -> np.ndarray:
    """The base colour (4,) 0..255 at the middle of the face nearest to a point."""
    middles = asset.vertices[asset.faces].mean(1)
    face = np.square(middles - np.float32(point)).sum(1).argmin()
    uv = asset.uvs[asset.faces[face]].mean(0, keepdims=True)
    return 255 * look_up(asset.textures.base_color, uv)[0]


def written(asset: Asset, folder: Path, format: str, **options) -> Path:
    if format != "obj":
        write_model(asset, folder / f"a.{format}", format=format, **options)
        return folder / f"a.{format}"
    write_model(asset, folder / "a.zip", format="obj")
    with zipfile.ZipFile(folder / "a.zip") as archive:
        archive.extractall(folder)
    return folder / "model.obj"


@pytest.fixture
def sphere() -> Asset:
    """Off centre and three units wide, so that a lost or invented scale shows."""
    asset = textured_sphere()
    return dataclasses.replace(asset, vertices=asset.vertices * 3 + np.float32([5, -2, 1]))


def test_own_glb_comes_back_as_it_went(tmp_path):
    sphere = textured_sphere()
    textures = dataclasses.replace(
        sphere.textures,
        metallic_roughness=np.full((64, 64, 2), (30, 200), np.uint8),
        normal=np.full((64, 64, 3), (128, 128, 255), np.uint8),
    )
    path = written(dataclasses.replace(sphere, textures=textures), tmp_path, "glb")
    for asset in (load_mesh(path), load_glb(path)):
        for name in ("vertices", "uvs", "normals"):
            gap = getattr(asset, name)[asset.faces] - getattr(sphere, name)[sphere.faces]
            assert np.abs(gap).max() < (0.05 if name == "normals" else 1e-6), name
        for name in ("base_color", "metallic_roughness", "normal"):
            assert np.array_equal(getattr(asset.textures, name), getattr(textures, name)), name
        assert asset.is_closed and asset.alpha_mode == "OPAQUE"


@pytest.mark.parametrize("format", ["glb", "obj", "ply", "stl"])
def test_every_format_keeps_shape_place_and_colours(sphere, tmp_path, format):
    asset = load_mesh(written(sphere, tmp_path, format))
    assert asset.vertices.dtype == np.float32 and asset.faces.dtype == np.int32
    gap = asset.vertices[asset.faces] - sphere.vertices[sphere.faces]
    assert np.abs(gap).max() < 1e-5 * 8  # same order, same winding
    assert asset.is_closed
    outward = (asset.vertices - np.float32([5, -2, 1])) / 1.5
    assert ((asset.normals * outward).sum(1) > 0.97).all()
    for direction in ([1, 0, 0], [0, 0, -1], [-0.6, 0.6, 0.5]):
        point = np.float32([5, -2, 1]) + 1.5 * np.float32(direction) / np.linalg.norm(direction)
        want = (195, 195, 195, 255) if format == "stl" else color_at(sphere, point)
        assert np.abs(color_at(asset, point) - want).max() <= (6 if format == "ply" else 2)


def test_draco_and_lossy_textures_are_read_too(sphere, tmp_path):
    options = {"texture_format": "webp", "geometry_compression": "draco"}
    asset = load_mesh(written(sphere, tmp_path, "glb", **options))
    assert len(asset.faces) == len(sphere.faces) and asset.is_closed
    point = [6.5, -2, 1]
    assert np.abs(color_at(asset, point) - color_at(sphere, point)).max() < 12


@pytest.fixture
def scene(sphere) -> trimesh.Scene:
    """A red metal box, a ball with vertex colours in linear light, a mirrored, tiled sheet."""
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(
        material=PBRMaterial(
            baseColorFactor=[255, 0, 0, 255], metallicFactor=1.0, roughnessFactor=0.2
        )
    )
    ball = trimesh.creation.icosphere(3, radius=0.5)
    ball.visual.vertex_colors = np.tile(np.uint8([55, 188, 0, 255]), (len(ball.vertices), 1))
    u, v = np.meshgrid(
        np.linspace(0, 2, 3), np.linspace(0, 1, 2)
    )  # the picture twice, side by side
    sheet = trimesh.Trimesh(
        np.stack([u.ravel() - 1, v.ravel() - 0.5, 0 * u.ravel()], 1),
        [[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4]],
        process=False,
    )
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4, 0] = image[:, 4:, 2] = 255  # left red, right blue
    sheet.visual = trimesh.visual.TextureVisuals(
        uv=np.stack([u.ravel(), v.ravel()], 1),
        material=PBRMaterial(baseColorTexture=Image.fromarray(image), roughnessFactor=0.6),
    )
    scene = trimesh.Scene()
    scene.add_geometry(box)
    moved = trimesh.transformations.translation_matrix
    scene.add_geometry(ball, transform=moved([2, 0, 0]))
    mirror = np.diag([-1.0, 1, 1, 1])
    scene.add_geometry(sheet, transform=moved([5, 0, 0]) @ mirror)
    return scene


def test_scene_of_many_materials_is_baked_into_one(scene, tmp_path):
    scene.export(tmp_path / "scene.glb")
    asset = load_mesh(tmp_path / "scene.glb", texture_size=512)
    assert asset.textures.base_color.shape == (512, 512, 4)
    assert np.allclose(asset.vertices.min(0), (-0.5, -0.5, -0.5), atol=1e-5)
    assert np.allclose(asset.vertices.max(0), (6, 0.5, 0.5), atol=1e-5)
    assert not asset.is_closed and asset.alpha_mode == "OPAQUE"
    for direction in np.concatenate([np.eye(3), -np.eye(3)]):
        assert np.abs(color_at(asset, direction / 2) - (255, 0, 0, 255)).max() <= 1
        linear = np.array([55, 188, 0]) / 255
        encoded = 255 * np.where(linear > 0, 1.055 * linear ** (1 / 2.4) - 0.055, 0)
        shown = color_at(asset, np.array([2, 0, 0]) + direction / 2)
        assert np.abs(shown[:3] - encoded).max() <= 2
    corners = asset.vertices[asset.faces]
    sheet = np.flatnonzero(corners[..., 0].min(1) > 3.9)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[sheet, 2] > 0).all()  # a mirror must not turn faces over
    for x, color in ((4.05, (0, 0, 255)), (4.95, (255, 0, 0)), (5.05, (0, 0, 255))):
        assert color_on_sheet(asset, sheet, x) == color, x  # mirrored, and twice
    # metal where the box is, not on the rest
    surface = asset.textures.metallic_roughness
    face = np.square(corners.mean(1) - (0, 0, 0.5)).sum(1).argmin()
    uv = asset.uvs[asset.faces[face]].mean(0, keepdims=True)
    assert np.abs(255 * look_up(surface, uv)[0] - (255, 51)).max() <= 1


def color_on_sheet(asset: Asset, sheet: np.ndarray, x: float) -> tuple[int, ...]:
    """The colour at (x, 0.1, 0), by the barycentric weights of the face it lies in."""
    for face in asset.faces[sheet]:
        a, b, c = asset.vertices[face][:, :2].astype(float)
        s, t = np.linalg.solve(np.stack([b - a, c - a], 1), np.array([x, 0.1]) - a)
        if min(s, t, 1 - s - t) >= 0:
            uv = np.array([1 - s - t, s, t]) @ asset.uvs[face]
            color = look_up(asset.textures.base_color, uv[None])[0, :3]
            return tuple(int(channel) for channel in np.rint(color) * 255)
    raise AssertionError("no face there")


def test_face_colours_and_plain_materials(tmp_path):
    box = trimesh.creation.box()
    colors = np.tile(np.uint8([0, 0, 200, 255]), (12, 1))
    colors[box.face_normals[:, 0] > 0.5] = (200, 0, 0, 255)
    box.visual.face_colors = colors
    box.export(tmp_path / "box.ply")
    asset = load_mesh(tmp_path / "box.ply", texture_size=256)
    assert np.abs(color_at(asset, (0.5, 0, 0)) - (200, 0, 0, 255)).max() <= 1
    assert np.abs(color_at(asset, (-0.5, 0, 0)) - (0, 0, 200, 255)).max() <= 1
    (tmp_path / "a.mtl").write_text("newmtl red\nKd 0.8 0 0\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl red\nf 1 2 3\n"
    )
    asset = load_mesh(tmp_path / "a.obj")
    assert np.abs(color_at(asset, (0, 0, 0)) - (204, 0, 0, 255)).max() <= 1
    assert asset.textures.base_color.shape[0] <= 16  # nothing to bake


def test_factors_and_cut_out_alpha_are_kept(tmp_path):
    sphere = textured_sphere()
    color = sphere.textures.base_color.copy()
    color[..., 3] = 100
    textures = Textures(color, metallic_factor=0.5, roughness_factor=0.25)
    cut = dataclasses.replace(sphere, textures=textures, alpha_mode="MASK")
    path = written(cut, tmp_path, "glb")
    content = path.read_bytes()
    factor = b'"pbrMetallicRoughness":{'
    document = json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])
    assert document["materials"][0]["alphaMode"] == "MASK" and factor in content
    material = document["materials"][0]
    material["alphaCutoff"] = 0.3
    material["pbrMetallicRoughness"]["baseColorFactor"] = [0.0, 1.0, 1.0, 1.0]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = content[20 + struct.unpack("<I", content[12:16])[0] :]
    head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    path.write_bytes(head + text + rest)
    asset = load_mesh(path)
    assert (asset.textures.metallic_factor, asset.textures.roughness_factor) == (0.5, 0.25)
    assert asset.alpha_mode == "MASK" and (asset.textures.base_color[..., 3] == 255).all()
    assert (asset.textures.base_color[..., 0] == 0).all()
    assert np.array_equal(asset.textures.base_color[..., 1], color[..., 1])


def test_normals_are_sharp_at_edges_and_smooth_elsewhere():
    normals = corner_normals(*cube())
    flat = np.cross(*np.moveaxis(np.diff(cube()[0][cube()[1]], axis=1), 1, 0))
    assert np.allclose(normals, np.repeat(flat[:, None], 3, axis=1), atol=1e-6)
    ball = trimesh.creation.icosphere(3)
    round_normals = corner_normals(ball.vertices.astype(np.float32), ball.faces)
    assert (round_normals * ball.vertices[ball.faces]).sum(-1).min() > 0.999


def test_fitted_is_centred_with_longest_side_one(sphere):
    low, high = fitted(sphere).vertices.min(0), fitted(sphere).vertices.max(0)
    assert np.allclose(low + high, 0, atol=1e-6) and (high - low).max() == pytest.approx(1)


def _gltf(**changes) -> str:
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"byteLength": 36, "uri": f"data:;base64,{'A' * 48}"}],
    }
    return json.dumps(document | changes)


HUGE_PLY = "ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\nproperty float x\n"
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
HOSTILE = {  # name -> content, and words of the complaint
    "missing.glb": (None, "no such mesh file"),
    "a.fbx": ("x", "ending in .glb, .gltf, .obj, .ply, .stl"),
    "empty.glb": ("", "cannot be read as GLB"),
    "noise.glb": (bytes(range(256)) * 9, "cannot be read as GLB"),
    "noise.stl": (bytes(range(256)) * 9, "cannot be read as STL|no triangles"),
    "huge.stl": (b" " * 80 + b"\xff" * 54, "cannot be read as STL|no triangles"),
    "text.ply": ("hello", "cannot be read as PLY"),
    "huge.ply": (HUGE_PLY + "end_header\n", "cannot be read as PLY"),
    "points.ply": (
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n",
        "no triangles",
    ),
    "text.obj": ("hello", "no triangles"),
    "nan.obj": ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "no triangles"),
    "range.obj": (TRIANGLE + "f 1 2 9\n", "cannot be read as OBJ|no triangles"),
    "dot.obj": ("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "no extent"),
    "far.obj": ("v 0 0 0\nv 1e200 0 0\nv 0 1e200 0\nf 1 2 3\n", "too large"),
    "parents.gltf": (_gltf(nodes=[{"children": [1, 1]}, {"mesh": 0}]), "two parents"),
    "cycle.gltf": (_gltf(nodes=[{"children": [1]}, {"children": [0]}]), "cannot be read|no tri"),
    "bomb.gltf": (
        _gltf(accessors=[{"componentType": 5126, "count": 300_000_000, "type": "VEC3"}]),
        "more than 20,000,000 faces",
    ),
    "outside.gltf": (
        _gltf(buffers=[{"byteLength": 36, "uri": "../../../../etc/passwd"}]),
        "cannot be read as GLTF",
    ),
    "remote.gltf": (
        _gltf(buffers=[{"byteLength": 36, "uri": "http://127.0.0.1:9/x"}]),
        "cannot be read as GLTF",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_unusable_file_is_refused_with_a_sentence(tmp_path, name):
    content, complaint = HOSTILE[name]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SurfaceError, match=complaint) as refusal:
        load_mesh(tmp_path / name)
    assert str(tmp_path) not in str(refusal.value) and "\n" not in str(refusal.value)


def test_truncated_files_never_raise_anything_else(sphere, tmp_path):
    for format in ("glb", "obj", "ply", "stl"):
        path = written(sphere, tmp_path, format)
        content = path.read_bytes()
        for share in np.linspace(0.02, 0.98, 9):
            path.write_bytes(content[: int(share * len(content))])
            with contextlib.suppress(SurfaceError):
                assert read_parts(path)


def test_strict_reader_wants_one_textured_mesh(scene, sphere, tmp_path):
    scene.export(tmp_path / "scene.glb")
    with pytest.raises(SurfaceError, match="one mesh was expected, this one has 3"):
        load_glb(tmp_path / "scene.glb")
    with pytest.raises(SurfaceError, match="with UVs and a base colour texture"):
        load_glb(written(sphere, tmp_path, "stl"))
