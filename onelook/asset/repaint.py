"""Many meshes and materials -> one mesh with one set of textures.

N vertices, M faces, K vertices after cutting along seams and creases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onelook.asset.asset import Asset, Textures
from onelook.asset.build import choose_alpha_mode
from onelook.asset.lay_out import laid_out_by, lay_out
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
    if _are_plain(parts):
        mesh = laid_out_by(np.full((len(vertices), 2), 0.5), vertices, faces, parts)
        paint = parts[0].paint
        textures, alpha_mode = _plain_textures(paint), paint.alpha_mode
        if paint.alpha_mode == "BLEND" and paint.factor[3] == 1:
            alpha_mode = "OPAQUE"
    else:
        from onelook.asset.bake import bake
        from onelook.asset.part_appearance import PartAppearance

        size = texture_size or _needed_size(parts, len(faces))
        surface = Surface(vertices, faces, PartAppearance(vertices, faces, parts, device))
        mesh = lay_out(vertices, faces, parts, size)
        textures = bake(
            mesh.vertices,
            mesh.normals,
            mesh.uvs,
            mesh.faces,
            surface,
            size,
            project=False,
            device=device,
        )
        alpha_mode = choose_alpha_mode(textures.base_color[..., 3])
    return Asset(
        vertices=mesh.vertices,
        normals=mesh.normals,
        uvs=mesh.uvs,
        faces=mesh.faces,
        textures=textures,
        is_closed=is_closed_outward(mesh.vertices, mesh.faces),
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
