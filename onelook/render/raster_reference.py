"""The rasteriser's plain twin: NumPy, one face at a time. Slow, and the truth for the others."""

from __future__ import annotations

import numpy as np

from onelook.render.rasterize import Raster

Array = np.ndarray
_GUARD = 1 << 23


def rasterize_reference(
    clip_positions: Array, faces: Array, width: int, height: int, *, cull: bool = False
) -> Raster:
    """What `rasterize` gives, pixel for pixel; same arguments, shapes and rules."""
    position, usable, depth, inverse_w = _to_screen(clip_positions, width, height)
    raster = Raster(
        np.full((height, width), -1, np.int32),
        np.zeros((height, width, 2), np.float32),
        np.ones((height, width), np.float32),
    )
    for number, corners in enumerate(np.asarray(faces)):
        if usable[corners].all():
            _draw(raster, number, position[corners], depth[corners], inverse_w[corners], cull)
    return raster


def _to_screen(clip: Array, width: int, height: int) -> tuple[Array, Array, Array, Array]:
    """(N, 4) -> positions in 1/256 pixel (N, 2) int64, usable (N,) bool, depth, 1 / w."""
    clip = clip.astype(np.float32)
    half = np.float32(0.5)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse_w = np.float32(1) / clip[:, 3]
        column = (clip[:, 0] * inverse_w * half + half) * np.float32(width * 256)
        row = (half - clip[:, 1] * inverse_w * half) * np.float32(height * 256)
        depth = clip[:, 2] * inverse_w * half + half
        usable = (clip[:, 3] > np.float32(1e-9)) & (abs(column) < _GUARD) & (abs(row) < _GUARD)
    position = np.rint(np.where(usable[:, None], np.stack([column, row], axis=1), 0))
    return position.astype(np.int64), usable, depth, inverse_w


def _draw(
    raster: Raster, number: int, position: Array, depth: Array, inverse_w: Array, cull: bool
) -> None:
    """Let one face, position (3, 2), depth and inverse_w (3,), compete for its pixels."""
    area = int(_edge(position[0], position[1], *position[2]))
    if area == 0 or (cull and area > 0):
        return
    height, width = raster.face_ids.shape
    left, top = np.maximum((position.min(axis=0) + 127) >> 8, 0)
    right, bottom = np.minimum((position.max(axis=0) - 128) >> 8, [width - 1, height - 1])
    if left > right or top > bottom:
        return
    row, column = np.mgrid[top : bottom + 1, left : right + 1]
    x, y = column * 256 + 128, row * 256 + 128
    sign = 1 if area > 0 else -1
    edges, inside = [], np.ones(x.shape, bool)
    for i in range(3):
        a, b = position[(i + 1) % 3], position[(i + 2) % 3]
        edges.append(_edge(a, b, x, y) * sign)
        dx, dy = (b - a) * sign
        includes_line = dy < 0 or (dy == 0 and dx > 0)
        inside &= edges[i] >= 0 if includes_line else edges[i] > 0
    weights = [value.astype(np.float32) / np.float32(abs(area)) for value in edges]
    z = depth[0] + (weights[1] * (depth[1] - depth[0]) + weights[2] * (depth[2] - depth[0]))
    old = raster.depth[row, column], raster.face_ids[row, column]
    wins = inside & (z >= 0) & (z <= 1) & ((z < old[0]) | ((z == 1) & (old[1] < 0)))
    third = np.float32(1) - weights[0] - weights[1]
    scaled = [weights[0] * inverse_w[0], weights[1] * inverse_w[1], third * inverse_w[2]]
    correct = np.stack(scaled[:2], axis=-1) / (scaled[0] + scaled[1] + scaled[2])[..., None]
    row, column = row[wins], column[wins]
    raster.face_ids[row, column] = number
    raster.depth[row, column] = z[wins]
    raster.barycentrics[row, column] = correct[wins]


def _edge(a: Array, b: Array, x: Array, y: Array) -> Array:
    return (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
