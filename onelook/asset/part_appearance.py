"""PartAppearance: the Appearance of a file of many meshes, each with its own material.

N vertices, M faces, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onelook.asset.mesh_parts import MeshPart, Paint, decode_srgb
from onelook.asset.texture_lookup import look_up
from onelook.closest_point import ClosestPoint
from onelook.surface import Material

Array = np.ndarray


class PartAppearance:
    """Asks the nearest face which part it belongs to, and that part's paint; an `Appearance`."""

    def __init__(
        self, vertices: Array, faces: Array, parts: Sequence[MeshPart], device: str | None = None
    ):
        """vertices (N, 3) and faces (M, 3): those of all parts, one after the other, wherever they
        have been moved to together."""
        self._paints = [part.paint for part in parts]
        self._part_of_face = np.repeat(np.arange(len(parts)), [len(part.faces) for part in parts])
        self._attributes = np.concatenate([_attributes(part) for part in parts])
        self._closest = ClosestPoint(vertices, faces, device)

    def sample(self, points: Array, normals: Array) -> Material:
        """The material at the nearest point of the file's meshes: (P, 3) twice -> P points."""
        hits = self._closest.query(points, normals=normals)
        rows = self._closest.interpolate(self._attributes, hits)
        part = self._part_of_face[hits.face]
        light = np.empty((len(points), 4), np.float32)
        surface = np.empty((len(points), 2), np.float32)
        for index in np.unique(part):
            here = np.flatnonzero(part == index)
            uvs, colors = rows[here, :2], rows[here, 2:]
            light[here], surface[here] = _ask(self._paints[index], uvs, colors)
        return Material(
            base_color=_encode_srgb(light[:, :3]),
            alpha=light[:, 3],
            metallic=surface[:, 0],
            roughness=surface[:, 1],
        )


def _attributes(part: MeshPart) -> Array:
    """(N, 6) float32: UV and colour of each vertex, zeros and ones where the part has none."""
    rows = np.ones((len(part.vertices), 6), np.float32)
    rows[:, :2] = 0 if part.uvs is None else part.uvs
    if part.colors is not None:
        rows[:, 2:] = part.colors
    return rows


def _ask(paint: Paint, uvs: Array, colors: Array) -> tuple[Array, Array]:
    """Linear light with alpha (P, 4), and metallic with roughness (P, 2)."""
    light = colors * paint.factor
    if paint.image is not None:
        image = look_up(paint.image, uvs)
        light = light * np.concatenate([decode_srgb(image[:, :3]), image[:, 3:]], axis=1)
    if paint.alpha_mode == "OPAQUE":
        light[:, 3] = 1
    elif paint.alpha_mode == "MASK":
        light[:, 3] = light[:, 3] >= paint.alpha_cutoff
    surface = np.tile(np.array([paint.metallic, paint.roughness]), (len(uvs), 1))
    if paint.metallic_roughness is not None:
        surface = surface * look_up(paint.metallic_roughness, uvs)
    return np.clip(light, 0, 1), surface


def _encode_srgb(light: Array) -> Array:
    """Linear light 0..1 -> sRGB-encoded, IEC 61966-2-1."""
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return encoded.astype(np.float32)
