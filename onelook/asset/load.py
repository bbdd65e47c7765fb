"""Read mesh files as Assets: what `onelook render` and the quality checks look at.

H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from onelook.asset.asset import Asset, Textures
from onelook.asset.mesh_parts import MeshPart, Paint, decode_srgb, read_parts
from onelook.asset.normals import vertex_normals
from onelook.asset.repaint import is_closed_outward, repaint
from onelook.errors import SurfaceError

Array = np.ndarray
LARGEST_TEXTURE = 8192
_UV_SLACK = 1e-4  # beyond 0..1, from rounding


def load_glb(path: Path) -> Asset:
    """A GLB with one textured mesh -> Asset, vertices where the file has them, smooth normals.

    Raises SurfaceError when the file holds no mesh, several meshes, or one without UVs and texture.
    """
    parts = read_parts(path)
    if len(parts) != 1:
        raise SurfaceError(f"a file with one mesh was expected, this one has {len(parts)}")
    if not _is_ready(parts):
        raise SurfaceError("a mesh with UVs and a base colour texture was expected")
    return _as_it_is(replace(parts[0], normals=None))


def load_mesh(path: Path, *, texture_size: int | None = None, device: str | None = None) -> Asset:
    """A GLB, glTF, OBJ, PLY or STL file -> Asset in the file's own coordinates.

    One mesh with UVs and a texture is taken as it is. One plain colour becomes a tiny texture.
    Everything else (several meshes, several materials, vertex colours, repeated textures) is laid
    out anew and baked into textures of texture_size pixels, by default 1024 to 4096, after what the
    file holds. No face is cleaned, closed or simplified. Normals are the file's, else smooth but
    for sharp edges. Raises SurfaceError with a sentence for files that cannot be used.
    """
    parts = read_parts(path)
    if _is_ready(parts):
        return _as_it_is(parts[0])
    mesh = join_parts(parts)
    asset = repaint(mesh.vertices, mesh.faces, parts, texture_size, device)
    return replace(asset, vertices=mesh.placed(asset.vertices))


@dataclass(frozen=True)
class JoinedMesh:
    """All parts of a file in one box: vertices (N, 3) float32, centred, longest side 1; faces
    (M, 3) int32, those of the parts one after the other. centre (3,) and scale: of the file."""

    vertices: Array
    faces: Array
    parts: Sequence[MeshPart]
    centre: Array
    scale: float

    def placed(self, vertices: Array) -> Array:
        """Vertices (K, 3) of the box -> the file's own coordinates, (K, 3) float32."""
        return (vertices * self.scale + self.centre).astype(np.float32)


def join_parts(parts: Sequence[MeshPart]) -> JoinedMesh:
    """Raises SurfaceError when together they have no size, or one beyond measure."""
    vertices = np.concatenate([part.vertices for part in parts])
    low, high = vertices.min(0), vertices.max(0)
    centre, scale = (low + high) / 2, float((high - low).max())
    if not 0 < scale < 1e30 or not np.abs(centre).max() < 1e30:
        raise SurfaceError("the mesh has no extent, or one that is too large to measure")
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])[:-1]
    faces = np.concatenate([p.faces + o for p, o in zip(parts, offsets, strict=True)])
    unit = ((vertices - centre) / scale).astype(np.float32)
    return JoinedMesh(unit, faces.astype(np.int32), parts, centre, scale)


def fitted(asset: Asset) -> Asset:
    """The asset moved and scaled into the canonical box: centred, longest side 1."""
    low, high = (f(asset.vertices.astype(np.float64), axis=0) for f in (np.min, np.max))
    size = float((high - low).max())
    vertices = (asset.vertices - (low + high) / 2) / (size if size > 0 else 1)
    return replace(asset, vertices=vertices.astype(np.float32))


def _is_ready(parts: Sequence[MeshPart]) -> bool:
    """Whether this is one textured mesh whose UVs stay inside the texture."""
    part = parts[0]
    if len(parts) > 1 or part.uvs is None or part.paint.image is None or part.colors is not None:
        return False
    inside = (part.uvs >= -_UV_SLACK) & (part.uvs <= 1 + _UV_SLACK)
    return bool(inside.all())


def _as_it_is(part: MeshPart) -> Asset:
    vertices = part.vertices.astype(np.float32)
    normals = vertex_normals(vertices, part.faces) if part.normals is None else part.normals
    return Asset(
        vertices=vertices,
        normals=normals.astype(np.float32),
        uvs=part.uvs.astype(np.float32),
        faces=part.faces.astype(np.int32),
        textures=_textures(part.paint),
        is_closed=is_closed_outward(vertices, part.faces),
        alpha_mode=part.paint.alpha_mode,
    )


def _textures(paint: Paint) -> Textures:
    """The paint as textures of one square size; factors are multiplied in."""
    images = [i for i in (paint.image, paint.metallic_roughness, paint.normal) if i is not None]
    size = min(LARGEST_TEXTURE, max(max(image.shape[:2]) for image in images))
    base_color = _square(_tinted(paint), size)
    packed = paint.metallic_roughness
    if packed is not None:
        factors = np.array([paint.metallic, paint.roughness])
        packed = _square(np.rint(packed * factors).astype(np.uint8), size)
    return Textures(
        base_color=base_color,
        metallic_roughness=packed,
        normal=None if paint.normal is None else _square(paint.normal, size),
        metallic_factor=paint.metallic if packed is None else 1.0,
        roughness_factor=paint.roughness if packed is None else 1.0,
    )


def _tinted(paint: Paint) -> Array:
    """The paint's image times its factor, by a table for each channel: (H, W, 4) uint8."""
    image, factor = paint.image, paint.factor
    if (factor != 1).any():
        codes = np.arange(256) / 255
        light = np.clip(decode_srgb(codes)[:, None] * factor[:3], 0, 1)
        tables = np.empty((256, 4))
        tables[:, :3] = np.where(
            light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
        )
        tables[:, 3] = codes * factor[3]
        tables = np.rint(255 * tables).astype(np.uint8)
        image = np.stack([tables[image[..., channel], channel] for channel in range(4)], axis=-1)
    if paint.alpha_mode == "MASK" and paint.alpha_cutoff != 0.5:
        image = image.copy()
        image[..., 3] = np.where(image[..., 3] >= 255 * paint.alpha_cutoff, 255, 0)
    return image


def _square(image: Array, size: int) -> Array:
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    return cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=cv2.INTER_LINEAR)
