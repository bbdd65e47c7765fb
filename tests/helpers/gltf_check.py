"""Take a GLB apart with nothing but the standard library and NumPy, and hold it to the format.

`check_glb` is the strict reader that tests use on every file the project writes: chunks, alignment,
accessors, indices, normals, images, and closedness of the welded mesh. `khronos_issues` asks the
reference validator, where node has it.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

Array = np.ndarray

REPOSITORY = Path(__file__).resolve().parents[2]
DTYPES = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@dataclass(frozen=True)
class Glb:
    """What a GLB with one mesh holds.

    vertices, normals (N, 3), uvs (N, 2), tangents (N, 4) or None: float32 as stored. faces (M, 3)
    int64. images by role ("base_color", "metallic_roughness", "normal") as RGB or RGBA uint8.
    document: its JSON.
    """

    document: dict
    vertices: Array
    normals: Array
    uvs: Array
    faces: Array
    images: dict[str, Array]
    tangents: Array | None = None

    @property
    def material(self) -> dict:
        return self.document["materials"][0]

    @property
    def is_closed(self) -> bool:
        """Whether every edge has exactly two faces once equal positions are welded."""
        _, index = np.unique(self.vertices + np.float32(0), axis=0, return_inverse=True)
        faces = index.reshape(-1)[self.faces]
        edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        _, uses = np.unique(edges, axis=0, return_counts=True)
        return bool((uses == 2).all())


def check_glb(path: Path) -> Glb:
    """Read a GLB and assert everything the format demands of it; returns what it holds."""
    document, binary = read_glb(path)
    assert document["asset"]["version"] == "2.0"
    assert document["buffers"] == [{"byteLength": len(binary)}]
    _check_views(document, binary)
    primitive = document["meshes"][0]["primitives"][0]
    arrays = {name: _array(document, binary, i) for name, i in primitive["attributes"].items()}
    indices = _array(document, binary, primitive["indices"])
    _check_targets(document, primitive)
    count = len(arrays["POSITION"])
    assert all(len(array) == count for array in arrays.values())
    assert all(np.isfinite(array).all() for array in arrays.values())
    lengths = np.linalg.norm(arrays["NORMAL"].astype(np.float64), axis=1)
    assert np.abs(lengths - 1).max() < 1e-4
    if "TANGENT" in arrays:
        _check_tangents(arrays["TANGENT"], arrays["NORMAL"])
    faces = indices.astype(np.int64).reshape(-1, 3)
    assert indices.size % 3 == 0 and faces.max() < count
    assert (faces != np.roll(faces, 1, axis=1)).all()
    glb = Glb(
        document=document,
        vertices=arrays["POSITION"],
        normals=arrays["NORMAL"],
        uvs=arrays["TEXCOORD_0"],
        faces=faces,
        images=_images(document, binary),
        tangents=arrays.get("TANGENT"),
    )
    assert glb.is_closed or glb.material.get("doubleSided", False)
    return glb


def khronos_issues(*paths: Path) -> dict[str, list[dict]] | None:
    """What the Khronos validator says of each file, by severity; None without node or validator."""
    node = shutil.which("node")
    if not node or not (REPOSITORY / "node_modules/gltf-validator").is_dir():
        return None
    script = Path(__file__).with_name("validate_gltf.mjs")
    command = [node, str(script), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    reports = json.loads(done.stdout)
    return {str(path): reports[str(path)]["messages"] for path in paths}


def read_glb(path: Path) -> tuple[dict, bytes]:
    """The JSON document and the binary chunk of a GLB, after checking the frame around them."""
    return _chunks(path.read_bytes())


def _chunks(content: bytes) -> tuple[dict, bytes]:
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    json_length, json_kind = struct.unpack_from("<I4s", content, 12)
    assert json_kind == b"JSON" and json_length % 4 == 0
    text = content[20 : 20 + json_length]
    bin_length, bin_kind = struct.unpack_from("<I4s", content, 20 + json_length)
    assert bin_kind == b"BIN\0" and bin_length % 4 == 0
    binary = content[28 + json_length :]
    assert len(binary) == bin_length
    assert text.rstrip(b" ").endswith(b"}")
    return json.loads(text, parse_constant=_refuse), binary


def _check_tangents(tangents: Array, normals: Array) -> None:
    assert np.abs(np.linalg.norm(tangents[:, :3], axis=1) - 1).max() < 1e-4
    assert (np.abs(tangents[:, 3]) == 1).all()
    assert np.abs((tangents[:, :3] * normals).sum(1)).max() < 1e-4


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def _check_views(document: dict, binary: bytes) -> None:
    """Views are aligned, inside the buffer, do not overlap, and leave only zeros between them."""
    end = 0
    for view in document["bufferViews"]:
        assert view["buffer"] == 0 and view["byteOffset"] % 4 == 0
        assert end <= view["byteOffset"] and not any(binary[end : view["byteOffset"]])
        end = view["byteOffset"] + view["byteLength"]
    assert end <= len(binary) and not any(binary[end:])


def _check_targets(document: dict, primitive: dict) -> None:
    def target(accessor: int) -> int:
        return document["bufferViews"][document["accessors"][accessor]["bufferView"]]["target"]

    assert all(target(i) == 34962 for i in primitive["attributes"].values())
    assert target(primitive["indices"]) == 34963


def _array(document: dict, binary: bytes, index: int) -> Array:
    """An accessor's array, after checking its size and its min and max."""
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    dtype, width = np.dtype(DTYPES[accessor["componentType"]]), WIDTHS[accessor["type"]]
    assert view["byteLength"] == accessor["count"] * width * dtype.itemsize
    array = np.frombuffer(binary, dtype, accessor["count"] * width, view["byteOffset"])
    array = array if width == 1 else array.reshape(-1, width)
    for name, bound in (("min", array.min(0)), ("max", array.max(0))):
        if name in accessor:
            assert (np.array(accessor[name], np.float32) == bound).all()
    return array


def _images(document: dict, binary: bytes) -> dict[str, Array]:
    """Every texture the material uses, decoded."""
    material = document["materials"][0]
    surface = material["pbrMetallicRoughness"]
    used = {
        "base_color": surface.get("baseColorTexture"),
        "metallic_roughness": surface.get("metallicRoughnessTexture"),
        "normal": material.get("normalTexture"),
    }
    images = {}
    for role, reference in used.items():
        if reference is None:
            continue
        texture = document["textures"][reference["index"]]
        source = texture.get("extensions", {}).get("EXT_texture_webp", texture)["source"]
        images[role] = _decoded(document, binary, source)
    return images


def _decoded(document: dict, binary: bytes, index: int) -> Array:
    entry = document["images"][index]
    view = document["bufferViews"][entry["bufferView"]]
    content = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    signature = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}
    assert content.startswith(signature[entry["mimeType"]])
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
