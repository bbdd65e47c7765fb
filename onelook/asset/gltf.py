"""Write an asset as a binary glTF 2.0 file (.glb): one mesh, one material, textures inside, or
colours at the vertices.

The file is plain core glTF (metallic-roughness material, float32 attributes), so every viewer and
engine opens it; only WebP textures and Draco geometry need an extension, EXT_texture_webp and
KHR_draco_mesh_compression. The numbers come from the glTF 2.0 specification (Khronos Group).

N vertices, M faces.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onelook import __version__
from onelook.asset.asset import Asset, ColoredMesh
from onelook.asset.draco import encode_draco
from onelook.asset.tangents import vertex_tangents
from onelook.asset.textures import EncodedImage, encode_textures
from onelook.asset.topology import uses_distinct
from onelook.errors import OptionError, OutputError, SurfaceError
from onelook.files import replacing

Array = np.ndarray

COMPRESSIONS = ("none", "draco")
GLB_MAGIC, GLB_VERSION = 0x46546C67, 2  # "glTF" in ASCII, little-endian
JSON_CHUNK, BIN_CHUNK = 0x4E4F534A, 0x004E4942
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963  # bufferView.target
UNSIGNED_SHORT, UNSIGNED_INT, FLOAT = 5123, 5125, 5126  # accessor.componentType
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071  # filters and wrapping
MOST_SHORT_VERTICES = 65535  # index 65535 itself means "restart" in 16 bits
MOST_BYTES = 2**32 - 1  # the file's length is a 32-bit number
WEBP, DRACO = "EXT_texture_webp", "KHR_draco_mesh_compression"


def write_glb(
    asset: Asset,
    path: Path,
    *,
    texture_format: str = "png",
    compression: str = "none",
    generator: str = f"onelook {__version__}",
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Write `asset` to `path`, which is there complete or not at all.

    texture_format: "png" (lossless), "jpeg" or "webp". compression of the geometry: "none" or
    "draco". extras: JSON values about how the asset was made; they join `asset.extras` in the
    file's `asset.extras`. Same asset, same bytes.
    Raises OutputError when the folder cannot be written or its disk is full, SurfaceError for an
    asset without faces, OptionError for an unknown texture format or compression and where the
    library for it is missing.
    """
    if compression not in COMPRESSIONS:
        raise OptionError(f"compression must be none or draco, got {compression!r}")
    if not len(asset.faces):
        raise SurfaceError("the asset has no faces, so there is no model to write")
    images = encode_textures(asset, texture_format)
    buffer = _Buffer()
    primitive = _add_mesh(buffer, asset, compression)
    textures = _add_textures(buffer, images)
    _write(
        path,
        buffer,
        primitive,
        _material(asset, images),
        {**_extensions(images, compression), **textures},
        generator,
        {**asset.extras, **(extras or {})},
    )


def write_colored_glb(
    mesh: ColoredMesh,
    path: Path,
    *,
    generator: str = f"onelook {__version__}",
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Write a mesh with vertex colours, linear in 16 bits as the format wants them; else as
    `write_glb`."""
    if not len(mesh.faces):
        raise SurfaceError("the mesh has no faces, so there is no model to write")
    buffer = _Buffer()
    columns = {"POSITION": mesh.vertices.astype("<f4"), "NORMAL": _unit(mesh.normals)}
    primitive = _add_plain_mesh(buffer, columns, mesh.faces[uses_distinct(mesh.faces)])
    primitive["attributes"]["COLOR_0"] = buffer.add_accessor(
        _linear_colors(mesh.colors), UNSIGNED_SHORT, ARRAY_BUFFER, normalized=True
    )
    material: dict[str, Any] = {
        "name": "object",
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9},
    }
    if not mesh.is_closed:
        material["doubleSided"] = True
    if mesh.colors[:, 3].min() < 255:
        material["alphaMode"] = "BLEND"
    _write(path, buffer, primitive, material, {}, generator, dict(extras or {}))


def _linear_colors(colors: Array) -> Array:
    """(N, 4) uint8, sRGB with linear alpha -> (N, 4) uint16, linear (IEC 61966-2-1)."""
    codes = np.arange(256) / 255
    light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    table = np.rint(65535 * light).astype("<u2")
    linear = table[colors]
    linear[:, 3] = 257 * colors[:, 3].astype("<u2")
    return linear


def _write(
    path: Path,
    buffer: _Buffer,
    primitive: dict,
    material: dict,
    further: dict,
    generator: str,
    extras: dict,
) -> None:
    """The document around one primitive and its material; `further` are entries of the document."""
    document = {
        "asset": _without_empty(
            {
                "version": "2.0",
                "generator": generator,
                "extras": extras,
            }
        ),
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "object", "mesh": 0}],
        "meshes": [{"name": "object", "primitives": [{**primitive, "material": 0, "mode": 4}]}],
        "materials": [material],
        **further,
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.length}],
    }
    with replacing(path) as file:
        file.writelines(_glb(document, buffer))


class _Buffer:
    """The binary chunk as it grows, with the views and accessors that describe it."""

    def __init__(self) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.length = 0
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def add_view(self, content: bytes | memoryview, **fields: Any) -> int:
        """Append bytes, aligned to four -> index of their buffer view."""
        self.views.append(
            {"buffer": 0, "byteOffset": self.length, "byteLength": len(content), **fields}
        )
        padding = bytes(-len(content) % 4)
        self.pieces += [content, padding]
        self.length += len(content) + len(padding)
        return len(self.views) - 1

    def add_accessor(self, array: Array, component: int, target: int, **fields: Any) -> int:
        """Append an array, one row per element -> index of its accessor."""
        array = np.ascontiguousarray(array)
        view = self.add_view(memoryview(array).cast("B"), target=target)
        width = 1 if array.ndim == 1 else array.shape[1]
        return self.announce(len(array), width, component, bufferView=view, **fields)

    def announce(self, count: int, width: int, component: int, **fields: Any) -> int:
        """An accessor of so many elements, on its own without content -> its index."""
        kind = "SCALAR" if width == 1 else f"VEC{width}"
        self.accessors.append({"componentType": component, "count": count, "type": kind, **fields})
        return len(self.accessors) - 1


def _add_mesh(buffer: _Buffer, asset: Asset, compression: str) -> dict:
    """Append geometry -> `attributes`, `indices` and `extensions` of the primitive."""
    faces = asset.faces[uses_distinct(asset.faces)]
    columns = {
        "POSITION": asset.vertices.astype("<f4"),
        "NORMAL": _unit(asset.normals),
        "TEXCOORD_0": asset.uvs.astype("<f4"),
    }
    if asset.textures.normal is not None:
        positions, normals, uvs = columns.values()
        columns["TANGENT"] = vertex_tangents(positions, normals, uvs, faces).astype("<f4")
    add = _add_draco_mesh if compression == "draco" else _add_plain_mesh
    return add(buffer, columns, faces)


def _add_plain_mesh(buffer: _Buffer, columns: dict[str, Array], faces: Array) -> dict:
    bounds = {"POSITION": _bounds(columns["POSITION"])}
    attributes = {
        name: buffer.add_accessor(column, FLOAT, ARRAY_BUFFER, **bounds.get(name, {}))
        for name, column in columns.items()
    }
    component, dtype = _index_kind(len(columns["POSITION"]))
    indices = buffer.add_accessor(faces.ravel().astype(dtype), component, ELEMENT_ARRAY_BUFFER)
    return {"attributes": attributes, "indices": indices}


def _add_draco_mesh(buffer: _Buffer, columns: dict[str, Array], faces: Array) -> dict:
    """The accessors have no content of their own; they announce what the decoder will give."""
    positions, normals, uvs = (columns[name] for name in ("POSITION", "NORMAL", "TEXCOORD_0"))
    coded = encode_draco(positions, normals, uvs, faces, columns.get("TANGENT"))
    count = len(coded.positions)
    bounds = {"POSITION": _bounds(coded.positions)}
    attributes = {
        name: buffer.announce(count, column.shape[1], FLOAT, **bounds.get(name, {}))
        for name, column in columns.items()
    }
    indices = buffer.announce(3 * coded.face_count, 1, _index_kind(count)[0])
    view = buffer.add_view(coded.content)
    extension = {"bufferView": view, "attributes": coded.ids}
    return {
        "attributes": attributes,
        "indices": indices,
        "extensions": {DRACO: extension},
    }


def _bounds(positions: Array) -> dict[str, list[float]]:
    return {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}


def _index_kind(vertex_count: int) -> tuple[int, str]:
    """The smallest component type and NumPy type that hold every index."""
    if vertex_count <= MOST_SHORT_VERTICES:
        return UNSIGNED_SHORT, "<u2"
    return UNSIGNED_INT, "<u4"


def _unit(normals: Array) -> Array:
    """Normals of length one; +Y where one is zero or not finite, for the format forbids both."""
    lengths = np.linalg.norm(normals.astype(np.float64), axis=1)
    usable = np.isfinite(lengths) & (lengths > 1e-12)
    unit = np.divide(normals, lengths[:, None], where=usable[:, None], out=np.zeros(normals.shape))
    unit[~usable] = (0.0, 1.0, 0.0)
    return unit.astype("<f4")


def _add_textures(buffer: _Buffer, images: dict[str, EncodedImage]) -> dict:
    """Append image files -> `images`, `textures` and their one `samplers`."""
    entries = [
        {
            "name": role,
            "mimeType": image.mime_type,
            "bufferView": buffer.add_view(image.content),
        }
        for role, image in images.items()
    ]
    textures = []
    for index, image in enumerate(images.values()):
        source = {"source": index}
        if image.mime_type == "image/webp":
            source = {"extensions": {WEBP: source}}
        textures.append({"sampler": 0, **source})
    sampler = {
        "magFilter": LINEAR,
        "minFilter": LINEAR_MIPMAP_LINEAR,
        "wrapS": CLAMP_TO_EDGE,
        "wrapT": CLAMP_TO_EDGE,
    }
    return {"textures": textures, "images": entries, "samplers": [sampler]}


def _extensions(images: dict[str, EncodedImage], compression: str) -> dict:
    """What a reader must know beyond core glTF; neither extension has a fallback in the file."""
    used = [WEBP] if any(image.mime_type == "image/webp" for image in images.values()) else []
    used += [DRACO] if compression == "draco" else []
    return {"extensionsUsed": used, "extensionsRequired": used} if used else {}


def _material(asset: Asset, images: dict[str, EncodedImage]) -> dict:
    """The material; texture k is image k. A texture is multiplied by its factor, so that is one."""
    place = {role: {"index": index} for index, role in enumerate(images)}
    packed = "metallic_roughness" in images
    surface = {
        "baseColorTexture": place["base_color"],
        "metallicFactor": 1.0 if packed else float(asset.textures.metallic_factor),
        "roughnessFactor": 1.0 if packed else float(asset.textures.roughness_factor),
    }
    if packed:
        surface["metallicRoughnessTexture"] = place["metallic_roughness"]
    material: dict[str, Any] = {"name": "object", "pbrMetallicRoughness": surface}
    if "normal" in images:
        material["normalTexture"] = place["normal"]
    if asset.alpha_mode != "OPAQUE":
        material["alphaMode"] = asset.alpha_mode
    if not asset.is_closed:
        material["doubleSided"] = True
    return material


def _glb(document: dict, buffer: _Buffer) -> Iterable[bytes | memoryview]:
    """The file's bytes, in pieces: header, JSON chunk, binary chunk."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text_bytes = text.encode()
    text_bytes += b" " * (-len(text_bytes) % 4)
    total = 12 + 8 + len(text_bytes) + 8 + buffer.length
    if total > MOST_BYTES:
        raise OutputError(
            f"the model would take {total / 1e9:.1f} GB, but a GLB holds 4.2 GB at most; ask for"
            " fewer faces or smaller textures"
        )
    yield struct.pack("<III", GLB_MAGIC, GLB_VERSION, total)
    yield struct.pack("<II", len(text_bytes), JSON_CHUNK)
    yield text_bytes
    yield struct.pack("<II", buffer.length, BIN_CHUNK)
    yield from buffer.pieces


def _without_empty(fields: dict) -> dict:
    return {name: value for name, value in fields.items() if value != {}}
