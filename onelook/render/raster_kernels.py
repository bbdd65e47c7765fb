"""Warp kernels and functions that the rasteriser's two ways share.

Everything that decides which face a pixel sees is exact, so the CPU, CUDA and the NumPy twin choose
the same one. Vertices are rounded to 1/256 of a pixel, edge functions are 64-bit integers, a pixel
centre on an edge belongs to one of its two faces (top-left rule), and depth is float32 without
fused multiply-add. The nearest face wins, and the lower number among equally near ones.
"""

from __future__ import annotations

from typing import Any

import warp as wp

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

GUARD = wp.constant(1 << 23)  # farthest position of a vertex; keeps edge functions below 2^51
OUTSIDE = wp.constant(-(1 << 30))


@wp.struct
class ScreenVertex:
    """x, y in 1/256 pixels (x is OUTSIDE where unusable), depth 0..1, 1 / clip w."""

    x: wp.int32
    y: wp.int32
    depth: wp.float32
    inverse_w: wp.float32


@wp.struct
class Span:
    """Pixels whose centres lie in the box of a face: columns and rows, both ends included."""

    left: wp.int32
    right: wp.int32
    top: wp.int32
    bottom: wp.int32


@wp.func
def to_screen(x: float, y: float, z: float, w: float, width: int, height: int) -> ScreenVertex:
    vertex = ScreenVertex()
    vertex.x = OUTSIDE
    if w > 1.0e-9:
        inverse_w = 1.0 / w
        column = (x * inverse_w * 0.5 + 0.5) * float(width * 256)
        row = (0.5 - y * inverse_w * 0.5) * float(height * 256)
        if wp.abs(column) < float(GUARD) and wp.abs(row) < float(GUARD):
            vertex.x = int(wp.rint(column))
            vertex.y = int(wp.rint(row))
            vertex.depth = z * inverse_w * 0.5 + 0.5
            vertex.inverse_w = inverse_w
    return vertex


@wp.kernel
def project_clip(
    first: int,
    clip_positions: wp.array(dtype=wp.vec4),
    width: int,
    height: int,
    screen: wp.array(dtype=ScreenVertex),
):
    """One item: a vertex in clip space -> on the screen."""
    i = first + wp.tid()
    clip = clip_positions[i]
    screen[i] = to_screen(clip[0], clip[1], clip[2], clip[3], width, height)


@wp.kernel
def project_points(
    first: int,
    positions: wp.array(dtype=wp.vec3),
    clip_from_world: wp.mat44,
    width: int,
    height: int,
    screen: wp.array(dtype=ScreenVertex),
):
    """One item: a vertex in world space -> on the screen."""
    i = first + wp.tid()
    p = positions[i]
    m = clip_from_world
    x = m[0, 0] * p[0] + m[0, 1] * p[1] + m[0, 2] * p[2] + m[0, 3]
    y = m[1, 0] * p[0] + m[1, 1] * p[1] + m[1, 2] * p[2] + m[1, 3]
    z = m[2, 0] * p[0] + m[2, 1] * p[1] + m[2, 2] * p[2] + m[2, 3]
    w = m[3, 0] * p[0] + m[3, 1] * p[1] + m[3, 2] * p[2] + m[3, 3]
    screen[i] = to_screen(x, y, z, w, width, height)


@wp.func
def edge(a: ScreenVertex, b: ScreenVertex, x: int, y: int) -> wp.int64:
    """Twice the signed area of a, b and the position (x, y); exact."""
    along = wp.int64(b.x - a.x) * wp.int64(y - a.y)
    return along - wp.int64(b.y - a.y) * wp.int64(x - a.x)


@wp.func
def tie(a: ScreenVertex, b: ScreenVertex, sign: wp.int64) -> wp.int64:
    """0 where a pixel centre exactly on the edge from a to b counts as inside, else -1."""
    dx = wp.int64(b.x - a.x) * sign
    dy = wp.int64(b.y - a.y) * sign
    if dy < wp.int64(0) or (dy == wp.int64(0) and dx > wp.int64(0)):
        return wp.int64(0)
    return wp.int64(-1)


@wp.func
def span_of(a: ScreenVertex, b: ScreenVertex, c: ScreenVertex, width: int, height: int) -> Span:
    span = Span()
    span.left = wp.max((wp.min(a.x, wp.min(b.x, c.x)) + 127) >> 8, 0)
    span.right = wp.min((wp.max(a.x, wp.max(b.x, c.x)) - 128) >> 8, width - 1)
    span.top = wp.max((wp.min(a.y, wp.min(b.y, c.y)) + 127) >> 8, 0)
    span.bottom = wp.min((wp.max(a.y, wp.max(b.y, c.y)) - 128) >> 8, height - 1)
    return span


@wp.func
def is_drawn(a: ScreenVertex, b: ScreenVertex, c: ScreenVertex, cull: bool) -> bool:
    """False for faces without area, with an unusable vertex, or seen from behind when culled."""
    if a.x == OUTSIDE or b.x == OUTSIDE or c.x == OUTSIDE:
        return False
    area = edge(a, b, c.x, c.y)  # y runs down the screen: negative is counter-clockwise
    return area < wp.int64(0) or (area > wp.int64(0) and not cull)


@wp.func
def depth_of(
    e1: wp.int64, e2: wp.int64, area: float, depth_a: float, depth_b: float, depth_c: float
) -> float:
    b = float(e1) / area
    c = float(e2) / area
    return depth_a + (b * (depth_b - depth_a) + c * (depth_c - depth_a))


@wp.func
def sort_key(depth: float, face: int) -> wp.int64:
    """depth << 32 | face; depth is 0..1, whose bits sort like the number."""
    return (wp.int64(wp.cast(depth, wp.int32)) << wp.int64(32)) | wp.int64(face)


@wp.func
def screen_weights(a: ScreenVertex, b: ScreenVertex, c: ScreenVertex, x: int, y: int) -> wp.vec3:
    """Weights of the three vertices at a position, linear on the screen; they sum to 1."""
    area = float(edge(a, b, c.x, c.y))
    weight_a = float(edge(b, c, x, y)) / area
    weight_b = float(edge(c, a, x, y)) / area
    return wp.vec3(weight_a, weight_b, 1.0 - weight_a - weight_b)


@wp.kernel
def weigh_pixels(
    first: int,
    screen: wp.array(dtype=ScreenVertex),
    faces: wp.array(dtype=wp.vec3i),
    face_ids: wp.array2d(dtype=wp.int32),
    barycentrics: wp.array2d(dtype=wp.vec2),
):
    """One item: a pixel -> perspective-correct weights of its face's first two vertices."""
    pixel = first + wp.tid()
    row, column = pixel // face_ids.shape[1], pixel % face_ids.shape[1]
    face = face_ids[row, column]
    weights = wp.vec2(0.0, 0.0)
    if face >= 0:
        corner = faces[face]
        a, b, c = screen[corner[0]], screen[corner[1]], screen[corner[2]]
        linear = screen_weights(a, b, c, column * 256 + 128, row * 256 + 128)
        in_a, in_b = linear[0] * a.inverse_w, linear[1] * b.inverse_w
        total = in_a + in_b + linear[2] * c.inverse_w
        weights = wp.vec2(in_a / total, in_b / total)
    barycentrics[row, column] = weights


def screen_array(count: int, device: str) -> Any:
    """An uninitialised array of `count` ScreenVertex."""
    return wp.empty(count, dtype=ScreenVertex, device=device)
