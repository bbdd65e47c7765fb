"""What a mesh file holds, taken apart into pieces of one material each, in one common space.

trimesh reads the files; here its many kinds of visuals become one plain one. Whatever the file
lacks, breaks or overdoes ends in a SurfaceError. N vertices, M faces, H rows, W columns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onelook.errors import SurfaceError

Array = np.ndarray

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
MOST_FACES = 20_000_000
MOST_PIXELS = 16384 * 16384
PLAIN_COLOR = 0.55  # linear light, about 195 as an sRGB byte: a light grey, for a file without any
PLAIN_ROUGHNESS = 0.9


@dataclass(frozen=True)
class Paint:
    """A material in glTF's terms.

    factor (4,) float64: linear light and alpha, a multiplier of image and vertex colours. image
    (H, W, 4) uint8, sRGB with straight alpha; metallic_roughness (H, W, 2) uint8, metallic first;
    normal (H, W, 3) uint8, tangent space; None where the file has none.
    """

    factor: Array
    image: Array | None = None
    metallic: float = 0.0
    roughness: float = PLAIN_ROUGHNESS
    metallic_roughness: Array | None = None
    normal: Array | None = None
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5


@dataclass(frozen=True)
class MeshPart:
    """Triangles with one material, in the space of the whole file.

    vertices (N, 3) float64; faces (M, 3) int32; normals (N, 3) float64 or None; uvs (N, 2) float64,
    origin at the top left, or None; colors (N, 4) float32 linear light and alpha, or None.
    """

    vertices: Array
    faces: Array
    paint: Paint
    normals: Array | None = None
    uvs: Array | None = None
    colors: Array | None = None


def read_parts(path: Path) -> list[MeshPart]:
    """The parts of a GLB, glTF, OBJ, PLY or STL file, each node's mesh where the node puts it.

    Faces with corners that are missing or not finite are left out. Raises SurfaceError with a
    sentence where that leaves nothing, and for files that cannot be read or are too large.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SurfaceError(f"a mesh file ending in {', '.join(SUFFIXES)} was expected")
    if not path.is_file():
        raise SurfaceError("there is no such mesh file")
    try:
        parts = _placed_parts(_load_scene(path, suffix), is_gltf=suffix in (".glb", ".gltf"))
    except SurfaceError:
        raise
    except Exception as error:  # a parser of foreign files may trip over anything in them
        raise SurfaceError(
            f"the mesh file cannot be read as {suffix[1:].upper()} ({type(error).__name__}); it may"
            " be damaged or of another format"
        ) from error
    if not parts:
        raise SurfaceError("the mesh file holds no triangles with finite corners")
    return parts


def _load_scene(path: Path, suffix: str) -> Any:
    import trimesh

    options = {}
    if suffix in (".glb", ".gltf"):
        _check_gltf(path, suffix)
    if suffix == ".ply":  # its UVs may be cut at seams, and then corners must be taken apart
        with open(path, "rb") as file:
            options["fix_texture"] = b"texturefile" in file.read(4096).lower()
    return trimesh.load_scene(path, process=False, **options)


def _check_gltf(path: Path, suffix: str) -> None:
    """Refuse a glTF that would keep trimesh busy for ever: shared nodes, arrays out of nothing."""
    with open(path, "rb") as file:
        if suffix == ".glb":
            file.seek(12)  # past the header, to the length of the JSON chunk
            length = int.from_bytes(file.read(4), "little")
            file.seek(20)
            document = json.loads(file.read(length))
        else:
            document = json.load(file)
    children = [i for node in document.get("nodes", []) for i in node.get("children", [])]
    if len(children) != len(set(children)):
        raise SurfaceError("the glTF file has a node with two parents, which the format forbids")
    if max((entry["count"] for entry in document.get("accessors", [])), default=0) > 3 * MOST_FACES:
        raise SurfaceError(f"the mesh file has more than {MOST_FACES:,} faces")


def _placed_parts(scene: Any, is_gltf: bool) -> list[MeshPart]:
    import trimesh

    parts, count, known = [], 0, {}
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        mesh = scene.geometry[name]
        if not isinstance(mesh, trimesh.Trimesh):
            continue  # lines and points
        count += len(mesh.faces)
        if count > MOST_FACES:
            raise SurfaceError(f"the mesh file has more than {MOST_FACES:,} faces")
        if name not in known:
            known[name] = _part(mesh, is_gltf)
        if (placed := _placed(known[name], np.asarray(transform, np.float64))) is not None:
            parts.append(placed)
    return parts


def _placed(part: MeshPart, transform: Array) -> MeshPart | None:
    """The part moved to its place, without unusable faces and vertices; None if none is left."""
    linear = transform[:3, :3]
    vertices = part.vertices @ linear.T + transform[:3, 3]
    sound = (part.faces >= 0).all(1) & (part.faces < len(vertices)).all(1)
    faces = part.faces[sound]
    faces = faces[np.isfinite(vertices).all(1)[faces].all(1)]
    if not len(faces):
        return None
    if np.linalg.det(linear) < 0:  # a mirror turns every face over
        faces = faces[:, ::-1]
    used = np.unique(faces)
    place = np.zeros(len(vertices), np.int32)
    place[used] = np.arange(len(used))
    normals = None
    if part.normals is not None:
        normals = part.normals[used] @ np.linalg.pinv(linear)  # inverse transposed, for rows
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        usable = np.isfinite(lengths).all() and (lengths > 1e-12).all()
        normals = normals / lengths if usable else None
    return MeshPart(
        vertices=vertices[used],
        faces=np.ascontiguousarray(place[faces]),
        paint=part.paint,
        normals=normals,
        uvs=None if part.uvs is None else part.uvs[used],
        colors=None if part.colors is None else part.colors[used],
    )


def _part(mesh: Any, is_gltf: bool) -> MeshPart:
    """A trimesh mesh in its own space."""
    vertices = np.asarray(mesh.vertices, np.float64)
    faces = np.asarray(mesh.faces, np.int64)
    # what the file says; the property of this name would work out others
    normals = mesh._cache.cache.get("vertex_normals")
    visual = mesh.visual
    uvs = colors = None
    paint = Paint(np.array([PLAIN_COLOR, PLAIN_COLOR, PLAIN_COLOR, 1.0]))
    if visual.kind == "texture":
        paint = paint if _is_stand_in(visual.material) else _paint(visual.material)
        uvs = _uvs(visual.uv, len(vertices))
        colors = _file_colors(mesh, visual)
        if paint.image is not None and uvs is None:
            paint = Paint(paint.factor, None, paint.metallic, paint.roughness)
    elif visual.kind == "vertex":
        colors = visual.vertex_colors
    elif visual.kind == "face":
        colors = np.repeat(visual.face_colors, 3, axis=0)
        vertices = vertices[np.clip(faces, 0, len(vertices) - 1)].reshape(-1, 3)
        faces, normals = np.arange(len(vertices)).reshape(-1, 3), None
    if colors is not None:
        colors = _linear(colors, is_encoded=not is_gltf)
        if visual.kind != "texture" or paint.image is None and not is_gltf:
            paint = Paint(np.ones(4), None, paint.metallic, paint.roughness, alpha_mode="BLEND")
    return MeshPart(vertices, faces.astype(np.int64), paint, normals, uvs, colors)


def _uvs(uvs: Any, count: int) -> Array | None:
    """UVs counted from the top; None where they are missing or not one finite pair a vertex."""
    if uvs is None or np.shape(uvs) != (count, 2) or not np.isfinite(uvs).all():
        return None
    return np.stack([uvs[:, 0], 1 - np.asarray(uvs[:, 1], np.float64)], axis=1)


def _file_colors(mesh: Any, visual: Any) -> Array | None:
    """Vertex colours that stand beside UVs: glTF's COLOR_0, or the columns of a PLY."""
    colors = visual.vertex_attributes.get("color")
    raw = mesh.metadata.get("_ply_raw", {}).get("vertex", {}).get("data")
    if colors is None and raw is not None:
        names = [n for n in ("red", "green", "blue", "alpha") if n in (raw.dtype.names or raw)]
        colors = np.stack([raw[name] for name in names], axis=1) if len(names) > 2 else None
    if colors is None or np.ndim(colors) != 2 or len(colors) != len(mesh.vertices):
        return None
    return np.asarray(colors)


def _linear(colors: Array, is_encoded: bool) -> Array:
    """Vertex colours (N, 3 or 4), bytes or 0..1 -> (N, 4) float32, linear light and alpha."""
    limit = np.iinfo(colors.dtype).max if colors.dtype.kind in "iu" else 1
    rows = np.ones((len(colors), 4), np.float32)
    rows[:, : colors.shape[1]] = np.nan_to_num(np.clip(colors.astype(np.float32) / limit, 0, 1))
    if is_encoded:  # PLY, OBJ and STL store what the screen shows; glTF stores light
        rows[:, :3] = decode_srgb(rows[:, :3])
    return rows


def decode_srgb(color: Array) -> Array:
    """sRGB-encoded 0..1 -> linear light, IEC 61966-2-1."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def _is_stand_in(material: Any) -> bool:
    """Whether trimesh made it up, for UVs without a material: four grey pixels from no file."""
    image = getattr(material, "image", None)
    if image is None:
        return material is None
    return image.size == (2, 2) and image.format is None


def _paint(material: Any) -> Paint:
    from trimesh.visual.material import PBRMaterial

    if not isinstance(material, PBRMaterial):
        # most programs take Kd for what the screen shows, and leave it out beside a texture
        image = _pixels(getattr(material, "image", None), "RGBA")
        diffuse = np.asarray(getattr(material, "diffuse", (195, 195, 195, 255)), np.float64) / 255
        factor = np.append(decode_srgb(diffuse[:3]), 1.0) if image is None else np.ones(4)
        return Paint(factor, image)
    factor = np.ones(4)
    if material.baseColorFactor is not None:
        factor = np.asarray(material.baseColorFactor, np.float64) / 255
    packed = _pixels(material.metallicRoughnessTexture, "RGB")
    metallic, roughness = material.metallicFactor, material.roughnessFactor
    cutoff = material.alphaCutoff
    return Paint(
        factor=factor,
        image=_pixels(material.baseColorTexture, "RGBA"),
        metallic=1.0 if metallic is None else float(np.clip(metallic, 0, 1)),
        roughness=1.0 if roughness is None else float(np.clip(roughness, 0, 1)),
        metallic_roughness=None if packed is None else packed[..., [2, 1]],  # G rough, B metal
        normal=_pixels(material.normalTexture, "RGB"),
        alpha_mode=material.alphaMode if material.alphaMode in ("MASK", "BLEND") else "OPAQUE",
        alpha_cutoff=0.5 if cutoff is None else float(cutoff),
    )


def _pixels(image: Any, mode: str) -> Array | None:
    if image is None:
        return None
    if image.width * image.height > MOST_PIXELS:
        raise SurfaceError(
            f"a texture of the mesh file has {image.width} x {image.height} pixels, which is more"
            " than 16384 x 16384"
        )
    return np.asarray(image.convert(mode))
