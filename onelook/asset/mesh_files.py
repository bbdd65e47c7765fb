"""Write an asset as OBJ, PLY or STL, for programs that do not read glTF.

All three keep the asset's positions and winding: +Y up, front +Z. Bytes are the same each time.
OBJ and its material file are described by Wavefront ("Object Files", "MTL Material Format"); the
keys Pr, Pm and norm are the common PBR extension of Exocortex. PLY: Turk, "The PLY Polygon File
Format", 1994. STL: 3D Systems, "StereoLithography Interface Specification".

N vertices, M faces.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from onelook import __version__
from onelook.asset.asset import Asset, ColoredMesh
from onelook.asset.normals import face_normals
from onelook.asset.texture_lookup import look_up
from onelook.asset.textures import encode_png
from onelook.asset.topology import weld_index
from onelook.errors import SurfaceError
from onelook.files import replacing

Array = np.ndarray

ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP can name; the time of writing is no content
LEVEL = 1  # of ZIP's 9: the next ones take longer than they save
ROWS_AT_ONCE = 1 << 16
OBJ_NAME, MTL_NAME, MATERIAL = "model.obj", "model.mtl", "object"
_SIGNATURE = f"onelook {__version__}"


def write_obj(asset: Asset, path: Path) -> None:
    """A ZIP with `model.obj`, `model.mtl` and its PNG textures: one file that holds them all.

    Raises OutputError when it cannot be written, SurfaceError for an asset without faces.
    """
    _require_faces(asset)
    pictures = _obj_pictures(asset)
    with replacing(path) as file, zipfile.ZipFile(file, "w", compresslevel=LEVEL) as archive:
        with archive.open(_entry(OBJ_NAME), "w", force_zip64=True) as entry:
            _write_obj_text(entry, asset)
        archive.writestr(_entry(MTL_NAME), _mtl_text(asset, pictures))
        for name, content in pictures.items():  # PNG is compressed already
            archive.writestr(_entry(name, zipfile.ZIP_STORED), content)


def write_colored_obj(mesh: ColoredMesh, path: Path) -> None:
    """A ZIP with `model.obj`, whose vertices have colours behind their positions (sRGB, 0..1).

    That is no part of the format, but most programs read it. Raises as `write_obj`.
    """
    _require_faces(mesh)
    rows = np.concatenate([mesh.vertices, mesh.colors[:, :3] / np.float32(255)], axis=1)
    corners = np.repeat(mesh.faces + 1, 2, axis=1)  # position and normal have the same number
    with (
        replacing(path) as file,
        zipfile.ZipFile(file, "w", compresslevel=LEVEL) as archive,
        archive.open(_entry(OBJ_NAME), "w", force_zip64=True) as entry,
    ):
        entry.write(f"# {_SIGNATURE}\no {MATERIAL}\n".encode())
        for line, values in (
            ("v %.9g %.9g %.9g %.4g %.4g %.4g\n", rows),
            ("vn %.6g %.6g %.6g\n", mesh.normals),
            ("f %d//%d %d//%d %d//%d\n", corners),
        ):
            entry.writelines(_lines(line, values))


def write_ply(asset: Asset | ColoredMesh, path: Path) -> None:
    """A binary PLY: position, normal and colour (RGBA) of each vertex, and of an asset its UV (s, t
    from below).

    An asset's colours are the base colour texture's at the vertices' UVs. All are sRGB-encoded.
    Raises as `write_obj`.
    """
    _require_faces(asset)
    floats, names = [asset.vertices, asset.normals], ["x", "y", "z", "nx", "ny", "nz"]
    if isinstance(asset, ColoredMesh):
        colors = asset.colors
    else:
        floats.append(_from_below(asset.uvs))
        names += ["s", "t"]
        colors = np.rint(255 * look_up(asset.textures.base_color, asset.uvs, repeat=False))
    columns = [(name, "<f4") for name in names]
    columns += [(name, "u1") for name in ("red", "green", "blue", "alpha")]
    rows = np.empty(len(asset.vertices), columns)
    values = np.concatenate(floats, axis=1)
    for (name, _), column in zip(columns, [*values.T, *colors.T], strict=True):
        rows[name] = column
    faces = np.empty(len(asset.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, asset.faces
    kinds = {"<f4": "float", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {_SIGNATURE}",
        f"element vertex {len(rows)}",
        *(f"property {kinds[kind]} {name}" for name, kind in columns),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    with replacing(path) as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(memoryview(rows).cast("B"))
        file.write(memoryview(faces).cast("B"))


def write_stl(asset: Asset | ColoredMesh, path: Path) -> None:
    """A binary STL: bare triangles with their normals. Raises as `write_obj`."""
    _require_faces(asset)
    fields = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")]
    triangles = np.zeros(len(asset.faces), fields)
    triangles["normal"] = face_normals(asset.vertices, asset.faces)[0]
    triangles["corners"] = asset.vertices[asset.faces]
    with replacing(path) as file:
        file.write(_SIGNATURE.encode().ljust(80))
        file.write(np.uint32(len(triangles)).astype("<u4").tobytes())
        file.write(memoryview(triangles).cast("B"))


def _require_faces(asset: Asset | ColoredMesh) -> None:
    if not len(asset.faces):
        raise SurfaceError("the asset has no faces, so there is no model to write")


def _from_below(uvs: Array) -> Array:
    """UVs with v counted from the bottom, as OBJ and PLY have it."""
    return np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1)


def _entry(name: str, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.compress_type, entry.create_system = method, 3  # 3: Unix
    entry.external_attr = 0o644 << 16
    return entry


def _write_obj_text(entry: IO[bytes], asset: Asset) -> None:
    """Positions and normals once each, so that the shape is not cut along UV seams."""
    vertices, vertex_index = _distinct(asset.vertices)
    normals, normal_index = _distinct(asset.normals)
    corners = np.stack([vertex_index, np.arange(len(asset.uvs)), normal_index], axis=1) + 1
    entry.write(f"# {_SIGNATURE}\nmtllib {MTL_NAME}\no {MATERIAL}\n".encode())
    for line, rows in (
        ("v %.9g %.9g %.9g\n", vertices),  # nine digits give a float32 back exactly
        ("vt %.9g %.9g\n", _from_below(asset.uvs)),
        ("vn %.6g %.6g %.6g\n", normals),
        (f"usemtl {MATERIAL}\n", None),
        ("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners[asset.faces].reshape(-1, 9)),
    ):
        for text in [line.encode()] if rows is None else _lines(line, rows):
            entry.write(text)


def _distinct(rows: Array) -> tuple[Array, Array]:
    """The different rows (K, 3) of (N, 3), in the order of first use, and the row of each (N,)."""
    index, count = weld_index(rows)
    first = np.full(count, len(rows))
    np.minimum.at(first, index, np.arange(len(rows)))
    order = np.argsort(first)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    return rows[first[order]], place[index]


def _lines(line: str, rows: Array) -> Iterator[bytes]:
    """One `line` per row, formatted many at a time."""
    for first in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[first : first + ROWS_AT_ONCE]
        yield (line * len(part) % tuple(part.ravel().tolist())).encode()


def _obj_pictures(asset: Asset) -> dict[str, bytes]:
    """File name -> PNG: MTL wants grey images where glTF packs several into one."""
    textures, pictures = asset.textures, {}
    pictures["base_color.png"] = textures.base_color[..., :3]
    if asset.alpha_mode != "OPAQUE":
        pictures["alpha.png"] = textures.base_color[..., 3]
    if textures.metallic_roughness is not None:
        pictures["metallic.png"] = textures.metallic_roughness[..., 0]
        pictures["roughness.png"] = textures.metallic_roughness[..., 1]
    if textures.normal is not None:
        pictures["normal.png"] = textures.normal
    with ThreadPoolExecutor(len(pictures)) as pool:  # the encoder releases Python's lock
        contents = pool.map(encode_png, map(np.ascontiguousarray, pictures.values()))
        return dict(zip(pictures, contents, strict=True))


def _mtl_text(asset: Asset, pictures: dict[str, bytes]) -> str:
    packed = "metallic.png" in pictures  # then the factors are one
    keys = {
        "base_color.png": "map_Kd",
        "alpha.png": "map_d",
        "metallic.png": "map_Pm",
        "roughness.png": "map_Pr",
        "normal.png": "norm",
    }
    lines = [
        f"# {_SIGNATURE}",
        f"newmtl {MATERIAL}",
        "Ka 0 0 0",
        "Kd 1 1 1",
        "Ks 0 0 0",
        "illum 1",
        f"Pm {1 if packed else asset.textures.metallic_factor:g}",
        f"Pr {1 if packed else asset.textures.roughness_factor:g}",
        *(f"{keys[name]} {name}" for name in pictures),
    ]
    return "\n".join(lines) + "\n"
