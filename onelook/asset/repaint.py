"""Many meshes and materials -> one mesh with one set of textures.

N vertices, M faces, K vertices after cutting along seams and creases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onelook.asset.asset import Asset, Textures
from onelook.asset.build import choose_alpha_mode
from onelook.asset.creases import corner_normals
from onelook.asset.mesh_parts import MeshPart, Paint
from onelook.asset.topology import weld_index
from onelook.surface import Surface

Array = np.ndarray
TEXTURE_SIZES = (1024, 4096)  # least and most, where nobody says
_TEXELS_PER_FACE = 24  # enough for colours that change at every vertex
_ROOM = 2.0  # an atlas is about half full
_TINY = 4  # pixels of a texture that has one colour


def repaint(
    vertices: Array,
    faces: Array,
    parts: Sequence[MeshPart],
    texture_size: int | None = None,
    device: str | None = None,
) -> Asset:
    """The parts' own triangles, laid out in one atlas, with the parts' materials baked into it.

    vertices (N, 3) float32, about the unit box, and faces (M, 3) int32: those of all parts, one
    after the other. texture_size: pixels; None for as many as the parts' images and faces need. A
    mesh of one plain colour gets a tiny texture and no layout.
    """
    normals = _normals_at_corners(vertices, faces, parts)
    if _are_plain(parts):
        uvs = np.full((len(vertices), 2), 0.5, np.float32)
        index, corners, normals = _cut_at_creases(faces, normals)
        paint = parts[0].paint
        textures, alpha_mode = _plain_textures(paint), paint.alpha_mode
        if paint.alpha_mode == "BLEND" and paint.factor[3] == 1:
            alpha_mode = "OPAQUE"
        vertices, uvs = vertices[index], uvs[index]
    else:
        from onelook.asset.bake import bake
        from onelook.asset.part_appearance import PartAppearance
        from onelook.asset.unwrap import unwrap

        size = texture_size or _needed_size(parts, len(faces))
        surface = Surface(vertices, faces, PartAppearance(vertices, faces, parts, device))
        laid_out = unwrap(vertices, faces, size)
        index, corners, normals = _cut_at_creases(laid_out.faces, normals)
        vertices, uvs = vertices[laid_out.vertices_index[index]], laid_out.uvs[index]
        textures = bake(
            vertices, normals, uvs, corners, surface, size, project=False, device=device
        )
        alpha_mode = choose_alpha_mode(textures.base_color[..., 3])
    return Asset(
        vertices=vertices,
        normals=normals,
        uvs=uvs,
        faces=corners,
        textures=textures,
        is_closed=is_closed_outward(vertices, corners),
        alpha_mode=alpha_mode,
    )


def is_closed_outward(vertices: Array, faces: Array) -> bool:
    """Whether every edge is walked once each way and the faces look out of what they enclose."""
    position, count = weld_index(vertices.astype(np.float32))
    walked = position[faces[:, [0, 1, 1, 2, 2, 0]]].reshape(-1, 2).astype(np.int64)
    forth = np.sort(walked[:, 0] * count + walked[:, 1])
    back = np.sort(walked[:, 1] * count + walked[:, 0])
    if (np.diff(forth) == 0).any() or not np.array_equal(forth, back):
        return False
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return bool(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0)


def _normals_at_corners(vertices: Array, faces: Array, parts: Sequence[MeshPart]) -> Array:
    """(M, 3, 3) float32: the file's normals, worked out for the parts without."""
    if all(part.normals is not None for part in parts):
        return np.concatenate([part.normals[part.faces] for part in parts]).astype(np.float32)
    normals = corner_normals(vertices, faces)
    first = 0
    for part in parts:
        if part.normals is not None:
            normals[first : first + len(part.faces)] = part.normals[part.faces]
        first += len(part.faces)
    return normals


def _cut_at_creases(faces: Array, normals: Array) -> tuple[Array, Array, Array]:
    """Repeat vertices whose corners have different normals.

    faces (M, 3), normals (M, 3, 3) -> the old index (K,) of each new vertex, new faces (M, 3) int32
    and unit normals (K, 3) float32.
    """
    kind, count = weld_index(normals.reshape(-1, 3))
    key = faces.ravel().astype(np.int64) * count + kind
    _, first, corners = np.unique(key, return_index=True, return_inverse=True)
    index = faces.ravel()[first]
    return index, corners.reshape(-1, 3).astype(np.int32), normals.reshape(-1, 3)[first]


def _are_plain(parts: Sequence[MeshPart]) -> bool:
    """Whether everything has one colour and one finish."""
    paints = [part.paint for part in parts]
    return (
        all(part.colors is None for part in parts)
        and all(p.image is None and p.metallic_roughness is None for p in paints)
        and len({(*p.factor, p.metallic, p.roughness, p.alpha_mode) for p in paints}) == 1
    )


def _plain_textures(paint: Paint) -> Textures:
    light = np.clip(paint.factor, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    encoded[3] = light[3] if paint.alpha_mode != "OPAQUE" else 1
    color = np.rint(255 * encoded).astype(np.uint8)
    return Textures(
        np.tile(color, (_TINY, _TINY, 1)),
        metallic_factor=paint.metallic,
        roughness_factor=paint.roughness,
    )


def _needed_size(parts: Sequence[MeshPart], face_count: int) -> int:
    """A power of two: room for the texels of every image, or for colours at every vertex."""
    images = {id(p.paint.image): p.paint.image for p in parts if p.paint.image is not None}
    texels = sum(image.shape[0] * image.shape[1] for image in images.values())
    texels = _ROOM * max(texels, _TEXELS_PER_FACE * face_count)
    return int(np.clip(2 ** math.ceil(math.log2(math.sqrt(texels))), *TEXTURE_SIZES))
