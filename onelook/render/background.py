"""What stands behind the object, and the soft shadow under it.

The shadow is ambient occlusion of the floor: for every floor point, the cosine-weighted part of
the sky that the object covers. It belongs to the object, so it is computed once and turns with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onelook.render.scene import RenderScene
from onelook.render.texture import srgb_decode

Array = np.ndarray
Color = tuple[int, int, int]
SHADOW_SIZE = 96  # floor points per side
_CELLS = 24  # the object is summed up in boxes, this many along its longest side


@dataclass(frozen=True)
class Background:
    """A vertical gradient between two sRGB colours; shadow_strength 0..1 darkens the floor."""

    top: Color
    bottom: Color
    shadow_strength: float = 0.0

    @staticmethod
    def plain(color: Color) -> Background:
        """One sRGB colour, three bytes."""
        return Background(color, color)

    @property
    def linear_top(self) -> Array:
        """(3,) float32, linear light."""
        return srgb_decode()[list(self.top)]

    @property
    def linear_bottom(self) -> Array:
        """(3,) float32, linear light."""
        return srgb_decode()[list(self.bottom)]


STUDIO = Background((226, 228, 231), (247, 247, 246), shadow_strength=0.75)
"""A light grey sweep that brightens towards the floor, with a contact shadow."""


def contact_shadow(scene: RenderScene) -> tuple[Any, float, float]:
    """Darkness (P, P) float32 0..1 on the device, half its side, and the floor's height.

    Rows run along +Z, columns along +X, object space; the floor touches the lowest vertex. Kept
    with the scene.
    """
    if scene.shadow is None:
        scene.shadow = _occlude_floor(scene)
    return scene.shadow


def _occlude_floor(scene: RenderScene) -> tuple[Any, float, float]:
    import cv2
    import warp as wp

    from onelook.kernels import launch
    from onelook.render import shadow_kernels as kernels

    asset, device = scene.asset, scene.device
    ground = float(asset.vertices[:, 1].min())
    spread = float(np.abs(asset.vertices[:, [0, 2]]).max())
    reach = 3.0 * max(spread, 1e-6)
    patches, areas = _summarise(asset.vertices, asset.faces)
    shadow = wp.zeros((SHADOW_SIZE, SHADOW_SIZE), dtype=wp.float32, device=device)
    inputs = [
        wp.array(patches, dtype=wp.vec3, device=device),
        wp.array(areas, dtype=wp.vec3, device=device),
        asset.is_closed,
        ground,
        reach,
        shadow,
    ]
    launch(kernels.occlude_floor, SHADOW_SIZE * SHADOW_SIZE, inputs, device)
    smooth = cv2.GaussianBlur(shadow.numpy(), (0, 0), 1.0)  # the patches' grain where they touch
    return wp.array(smooth, dtype=wp.float32, device=device), reach, ground


def _summarise(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """Faces gathered by box of a grid: mean centres and summed area vectors, (K, 3) float32."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    cell = max((high - low).max(), 1e-6) / _CELLS
    corners = _split(vertices[faces], cell)  # (M, 3, 3)
    centres = corners.mean(axis=1)
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    box = np.minimum(np.floor((centres - low) / cell), _CELLS - 1)
    # opposite sides of a thin wall must not cancel out: one box per main direction of the normal
    axis = np.abs(areas).argmax(axis=1)
    side = axis * 2 + (np.take_along_axis(areas, axis[:, None], axis=1)[:, 0] < 0)
    key = (((box[:, 0] * _CELLS + box[:, 1]) * _CELLS + box[:, 2]) * 6 + side).astype(np.int64)
    weight = np.linalg.norm(areas, axis=1) + 1e-12
    total = np.bincount(key, weight)
    used = np.flatnonzero(total)
    patches, summed = (
        np.stack([np.bincount(key, column)[used] for column in array.T], axis=1)
        for array in (centres * weight[:, None], areas)
    )
    return (patches / total[used, None]).astype(np.float32), summed.astype(np.float32)


def _split(corners: Array, longest: float) -> Array:
    """Quarter the faces (M, 3, 3) that have an edge above `longest` until none is left."""
    done = []
    while len(corners):
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
        large = edges.max(axis=1) > longest
        done.append(corners[~large])
        a, b, c = np.moveaxis(corners[large], 1, 0)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        quarters = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
        corners = np.concatenate([np.stack(quarter, axis=1) for quarter in quarters])
    return np.concatenate(done)
