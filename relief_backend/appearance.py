"""Colours of the relief: the picture in front, its blurred mirror image at the back.

S picture side in pixels, N points, B blurred copies, h their side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import warp as wp

from onelook.kernels import launch
from onelook.surface import Material
from relief_backend.config import ReliefConfig

Array = np.ndarray

_BLURRED_SIDE = 256  # pixels; ample for copies blurred by half a percent and more
_RIM = 0.2  # normal.z below which the first blurred copy begins to show
_FULLY_BACK = 0.7  # -normal.z at which the strongest blur is reached
_DEEP = 0.1  # ... where the back is this far behind the middle: thin parts keep their own colour


@dataclass(frozen=True)
class PictureFrame:
    """Where canonical x, y lie in the picture: column = center_column + scale * x, row downward."""

    center_column: float
    center_row: float
    scale: float


class PictureAppearance:
    """The picture projected along z; toward the back it dissolves into ever softer copies.

    Points whose normal looks at the viewer have exactly the picture's colour there, so the front,
    unlit and without perspective, is the cut-out; only a thin band at the rim is softened, where
    single pixels would be drawn out into stripes along z. Beyond the outline the subject's own
    colours go on, so no background colour can reach the rim.
    """

    def __init__(self, colors: Array, blurred: Array, frame: PictureFrame, roughness: float):
        """colors (S, S, 3) and blurred (B, h, h, 3): float32 0..1, sRGB; see `paint`."""
        self.colors = np.ascontiguousarray(colors, np.float32)
        self.blurred = np.ascontiguousarray(blurred, np.float32)
        self.frame = frame
        self.roughness = roughness

    def sample(self, points: Array, normals: Array) -> Material:
        """points and unit normals (N, 3) float32, canonical space -> matte Material of N points."""
        result = np.empty((len(points), 3), np.float32)
        arrays = [
            wp.array(
                np.ascontiguousarray(array, np.float32), dtype=wp.vec3, device="cpu", copy=False
            )
            for array in (points, normals, self.colors, self.blurred, result)
        ]
        frame = self.frame
        inputs = [
            *arrays,
            wp.vec2(frame.center_column - 0.5, frame.center_row - 0.5),
            frame.scale,
            _RIM,
            _FULLY_BACK,
            _DEEP,
        ]
        launch(_look_up, len(points), inputs, "cpu")
        return Material.matte(result, self.roughness)


def extend_colors(image: Array) -> Array:
    """image (S, S, 4) uint8, straight alpha -> colours (S, S, 3) float32 0..1 everywhere.

    Opaque pixels keep their colour; through soft edges and beyond, the colour of the nearest opaque
    region goes on (push-pull: Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4).
    """
    alpha = image[..., 3].astype(np.float32) / 255.0
    weight = np.clip((alpha - 0.3) / 0.6, 0, 1)
    colors = image[..., :3].astype(np.float32) / 255.0
    return _push_pull(colors * weight[..., None], weight)


def _push_pull(weighted: Array, weight: Array) -> Array:
    """Fill where weight < 1 from coarser levels: weighted (H, W, 3), weight (H, W) -> (H, W, 3)."""
    rows, columns = weight.shape
    if max(rows, columns) == 1:
        return weighted / np.maximum(weight, 1e-6)[..., None]
    half = (max(columns // 2, 1), max(rows // 2, 1))
    coarse, coarse_weight = (
        cv2.resize(array, half, interpolation=cv2.INTER_AREA) for array in (weighted, weight)
    )
    grown = np.minimum(1.0, 4.0 * coarse_weight)  # one covered pixel of four is enough
    scale = grown / np.maximum(coarse_weight, 1e-12)
    filled = _push_pull(coarse.reshape(*half[::-1], 3) * scale[..., None], grown)
    beyond = cv2.resize(filled, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return weighted + (1 - weight[..., None]) * beyond.reshape(rows, columns, 3)


def blur_copies(colors: Array, alpha: Array, side: float, config: ReliefConfig) -> Array:
    """Ever softer copies of the subject's colours alone: (S, S, 3), (S, S) -> (B, h, h, 3).

    side: longest side of the subject in pixels, of which config.back_blurs are shares.
    """
    h = min(_BLURRED_SIDE, len(alpha))
    weight = cv2.resize(alpha.astype(np.float32), (h, h), interpolation=cv2.INTER_AREA)
    small = cv2.resize(colors, (h, h), interpolation=cv2.INTER_AREA)
    copies = []
    for share in config.back_blurs:
        sigma = max(share * side * h / len(alpha), 0.3)
        total = cv2.GaussianBlur(weight, (0, 0), sigma)
        blurred = cv2.GaussianBlur(small * weight[..., None], (0, 0), sigma)
        enough = np.clip(20 * total, 0, 1)  # where next to nothing was gathered, stay with colors
        share_of_blur = (enough / np.maximum(total, 1e-6))[..., None]
        copies.append(blurred * share_of_blur + small * (1 - enough)[..., None])
    return np.stack(copies)


@wp.func
def _bilinear(image: wp.array2d(dtype=wp.vec3), column: float, row: float):
    x = wp.clamp(column, 0.0, float(image.shape[1] - 1))
    y = wp.clamp(row, 0.0, float(image.shape[0] - 1))
    i = wp.min(int(x), wp.max(image.shape[1] - 2, 0))
    j = wp.min(int(y), wp.max(image.shape[0] - 2, 0))
    i_after = wp.min(i + 1, image.shape[1] - 1)
    j_after = wp.min(j + 1, image.shape[0] - 1)
    above = wp.lerp(image[j, i], image[j, i_after], x - float(i))
    below = wp.lerp(image[j_after, i], image[j_after, i_after], x - float(i))
    return wp.lerp(above, below, y - float(j))


@wp.kernel(enable_backward=False)
def _look_up(
    first: int,
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    colors: wp.array2d(dtype=wp.vec3),
    blurred: wp.array3d(dtype=wp.vec3),
    result: wp.array(dtype=wp.vec3),
    center: wp.vec2,
    scale: float,
    rim: float,
    fully_back: float,
    deep: float,
):
    """Colour of one point; `center` is in pixel indices (whole numbers at pixel centres)."""
    n = first + wp.tid()
    column = center[0] + scale * points[n][0]
    row = center[1] - scale * points[n][1]
    facing = normals[n][2]
    away = 1.0 - wp.smoothstep(0.0, rim, facing)  # 0 in front, 1 at the rim .. B at the back
    depth = wp.clamp(-points[n][2] / deep, 0.0, 1.0)
    away += wp.smoothstep(0.0, fully_back, -facing) * depth * float(blurred.shape[0] - 1)
    softest = int(wp.ceil(away))
    shrink_x = float(blurred.shape[2]) / float(colors.shape[1])
    shrink_y = float(blurred.shape[1]) / float(colors.shape[0])
    small_column = (column + 0.5) * shrink_x - 0.5
    small_row = (row + 0.5) * shrink_y - 0.5
    if away <= 1.0:
        color = _bilinear(colors, column, row)
        if softest == 1:
            color = wp.lerp(color, _bilinear(blurred[0], small_column, small_row), away)
        result[n] = color
    else:
        sharper = _bilinear(blurred[softest - 2], small_column, small_row)
        softer = _bilinear(blurred[softest - 1], small_column, small_row)
        result[n] = wp.lerp(sharper, softer, away - float(softest - 1))
