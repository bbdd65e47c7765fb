"""The textures while they are being baked: materials in, images out.

T texture size, P texels.
"""

from __future__ import annotations

import numpy as np

from onelook.asset.asset import Textures
from onelook.asset.fill import fill_from, nearest_texel
from onelook.surface import Material

Array = np.ndarray
_STEP = 1 / 255


class Canvas:
    """Images of T x T pixels that fill up piece by piece."""

    def __init__(self, texture_size: int, normal_map: bool):
        shape = (texture_size, texture_size)
        self._covered = np.zeros(shape, bool)
        self._base_color = np.zeros((*shape, 4), np.uint8)
        self._normal = np.zeros((*shape, 3), np.uint8) if normal_map else None
        self._metallic_roughness: Array | None = None  # made when they turn out to vary
        self._constant: Array | None = None  # (2,) while they do not

    def write(self, texels: Array, material: Material, normals: Array | None) -> None:
        """Set texels (P,), flat indices; normals (P, 3) in tangent space or None.

        A texel whose material is not finite stays empty and is filled from its neighbours.
        """
        color = _columns(material.base_color, material.alpha)
        surface = _columns(material.metallic, material.roughness)
        if not np.isfinite(color.sum() + surface.sum()):
            sound = np.isfinite(color).all(axis=1) & np.isfinite(surface).all(axis=1)
            texels, color, surface = texels[sound], color[sound], surface[sound]
            normals = None if normals is None else normals[sound]
        if not len(texels):
            return
        self._covered.reshape(-1)[texels] = True
        self._base_color.reshape(-1, 4)[texels] = _to_bytes(color)
        self._write_surface(texels, surface)
        if self._normal is not None:
            self._normal.reshape(-1, 3)[texels] = _to_bytes(0.5 * normals + 0.5)

    def finish(self) -> Textures:
        """Fill what no face covers from the nearest covered texel."""
        nearest = nearest_texel(self._covered)
        images = (self._base_color, self._metallic_roughness, self._normal)
        if nearest is not None:
            for image in images:
                if image is not None:
                    fill_from(image, nearest)
        if self._metallic_roughness is not None:
            return Textures(*images, metallic_factor=1.0, roughness_factor=1.0)
        metallic, roughness = (0.0, 1.0) if self._constant is None else self._constant.tolist()
        return Textures(*images, metallic_factor=metallic, roughness_factor=roughness)

    def _write_surface(self, texels: Array, surface: Array) -> None:
        if self._metallic_roughness is None:
            if self._constant is None:
                self._constant = np.clip(surface[0], 0, 1)
            low, high = (
                np.array([edge(column) for column in surface.T]) for edge in (np.min, np.max)
            )
            if max((high - self._constant).max(), (self._constant - low).max()) < _STEP / 2:
                return
            size = len(self._covered)
            self._metallic_roughness = np.empty((size, size, 2), np.uint8)
            self._metallic_roughness[:] = _to_bytes(self._constant)
        self._metallic_roughness.reshape(-1, 2)[texels] = _to_bytes(surface)


def _columns(*parts: Array) -> Array:
    """(P,) and (P, C) arrays side by side: (P, all columns) float32."""
    parts = [part.reshape(len(part), -1) for part in parts]
    result = np.empty((len(parts[0]), sum(part.shape[1] for part in parts)), np.float32)
    first = 0
    for part in parts:
        result[:, first : first + part.shape[1]] = part
        first += part.shape[1]
    return result


def _to_bytes(values: Array) -> Array:
    """0..1 -> 0..255, rounded."""
    scaled = values * np.float32(255)
    scaled += np.float32(0.5)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)
