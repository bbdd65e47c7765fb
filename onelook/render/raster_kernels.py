"""Warp kernels of the rasteriser: which face does each pixel see?

Everything that decides is exact, so the CPU, CUDA and the NumPy twin choose the same face for every
pixel. Vertices are rounded to 1/256 of a pixel, edge functions are 64-bit integers, a pixel centre
on an edge belongs to one of its two faces (top-left rule), and depth is float32 without fused
multiply-add. The nearest face wins, and the one with the lower number among equally near ones.

The CPU has no safe atomics between threads, so there one item is a band of rows: it walks all
faces and draws those that reach into the band. On CUDA one item is a face, and the winner is found
by an atomic minimum of depth << 32 | face; large faces are left to groups of threads.
"""

from __future__ import annotations

from typing import Any

import warp as wp

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

STEPS = 256  # positions per pixel and axis
GUARD = wp.constant(1 << 23)  # farthest position of a vertex; keeps edge functions below 2^51
OUTSIDE = wp.constant(-(1 << 30))
EMPTY_KEY = wp.constant(wp.int64((1 << 63) - 1))
RUN = wp.constant(64)  # faces in a row that a band can pass over at once
LARGE = wp.constant(1024)  # pixels in the box of a face that one CUDA thread should not walk
LANES = wp.constant(256)  # threads that share a large face


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


@wp.kernel
def find_rows(
    first: int,
    screen: wp.array(dtype=ScreenVertex),
    faces: wp.array(dtype=wp.vec3i),
    cull: bool,
    width: int,
    height: int,
    rows: wp.array(dtype=wp.int32),
    run_rows: wp.array(dtype=wp.int32),
):
    """One item: a run of RUN faces -> first row << 16 | last row of each and of the whole run.

    -1 stands for nothing to draw.
    """
    run = first + wp.tid()
    run_top, run_bottom = wp.int32(height), wp.int32(-1)
    for face in range(run * RUN, wp.min(run * RUN + RUN, faces.shape[0])):
        corner = faces[face]
        a, b, c = screen[corner[0]], screen[corner[1]], screen[corner[2]]
        packed = wp.int32(-1)
        if is_drawn(a, b, c, cull):
            span = span_of(a, b, c, width, height)
            if span.left <= span.right and span.top <= span.bottom:
                packed = (span.top << 16) | span.bottom
                run_top = wp.min(run_top, span.top)
                run_bottom = wp.max(run_bottom, span.bottom)
        rows[face] = packed
    run_rows[run] = wp.where(run_bottom < 0, -1, (run_top << 16) | run_bottom)


@wp.func
def reaches(packed: int, top: int, bottom: int) -> bool:
    """Whether first row << 16 | last row has a row in top..bottom."""
    return packed >= 0 and (packed >> 16) <= bottom and (packed & 0xFFFF) >= top


@wp.func
def draw_rows(
    face: int,
    a: ScreenVertex,
    b: ScreenVertex,
    c: ScreenVertex,
    top: int,
    bottom: int,
    peel: bool,
    front_ids: wp.array2d(dtype=wp.int32),
    front_depth: wp.array2d(dtype=wp.float32),
    face_ids: wp.array2d(dtype=wp.int32),
    depth: wp.array2d(dtype=wp.float32),
):
    """CPU: draw the part of a face that lies in the rows top..bottom."""
    span = span_of(a, b, c, face_ids.shape[1], face_ids.shape[0])
    signed_area = edge(a, b, c.x, c.y)
    sign = wp.where(signed_area > wp.int64(0), wp.int64(1), wp.int64(-1))
    area = float(signed_area * sign)
    tie_a, tie_b, tie_c = tie(b, c, sign), tie(c, a, sign), tie(a, b, sign)
    step_a = wp.int64((b.y - c.y) * 256) * sign
    step_b = wp.int64((c.y - a.y) * 256) * sign
    step_c = wp.int64((a.y - b.y) * 256) * sign
    x = span.left * 256 + 128
    for row in range(wp.max(span.top, top), wp.min(span.bottom, bottom) + 1):
        y = row * 256 + 128
        edge_a = edge(b, c, x, y) * sign
        edge_b = edge(c, a, x, y) * sign
        edge_c = edge(a, b, x, y) * sign
        for column in range(span.left, span.right + 1):
            if ((edge_a + tie_a) | (edge_b + tie_b) | (edge_c + tie_c)) >= wp.int64(0):
                z = depth_of(edge_b, edge_c, area, a.depth, b.depth, c.depth)
                shown = z >= 0.0 and (
                    z < depth[row, column] or (z == 1.0 and face_ids[row, column] < 0)
                )
                if shown and peel:
                    front = sort_key(front_depth[row, column], front_ids[row, column])
                    shown = front_ids[row, column] >= 0 and sort_key(z, face) > front
                if shown:
                    depth[row, column] = z
                    face_ids[row, column] = face
            edge_a += step_a
            edge_b += step_b
            edge_c += step_c


@wp.kernel
def draw_band(
    first: int,
    screen: wp.array(dtype=ScreenVertex),
    faces: wp.array(dtype=wp.vec3i),
    rows: wp.array(dtype=wp.int32),
    run_rows: wp.array(dtype=wp.int32),
    band_rows: int,
    peel: bool,
    front_ids: wp.array2d(dtype=wp.int32),
    front_depth: wp.array2d(dtype=wp.float32),
    face_ids: wp.array2d(dtype=wp.int32),
    depth: wp.array2d(dtype=wp.float32),
):
    """One item: a band of rows, cleared and drawn; with `peel`, only what lies behind the front."""
    band = first + wp.tid()
    width = face_ids.shape[1]
    band_top = band * band_rows
    band_bottom = wp.min(band_top + band_rows, face_ids.shape[0]) - 1
    for row in range(band_top, band_bottom + 1):
        for column in range(width):
            face_ids[row, column] = -1
            depth[row, column] = 1.0
    for run in range(run_rows.shape[0]):
        if reaches(run_rows[run], band_top, band_bottom):
            for face in range(run * RUN, wp.min(run * RUN + RUN, faces.shape[0])):
                if reaches(rows[face], band_top, band_bottom):
                    corner = faces[face]
                    draw_rows(
                        face,
                        screen[corner[0]],
                        screen[corner[1]],
                        screen[corner[2]],
                        band_top,
                        band_bottom,
                        peel,
                        front_ids,
                        front_depth,
                        face_ids,
                        depth,
                    )


@wp.func
def offer(
    row: int,
    column: int,
    face: int,
    a: ScreenVertex,
    b: ScreenVertex,
    c: ScreenVertex,
    peel: bool,
    front_keys: wp.array2d(dtype=wp.int64),
    keys: wp.array2d(dtype=wp.int64),
):
    """CUDA: let `face` compete for one pixel."""
    x, y = column * 256 + 128, row * 256 + 128
    signed_area = edge(a, b, c.x, c.y)
    sign = wp.where(signed_area > wp.int64(0), wp.int64(1), wp.int64(-1))
    edge_a = edge(b, c, x, y) * sign
    edge_b = edge(c, a, x, y) * sign
    edge_c = edge(a, b, x, y) * sign
    inside_a, inside_b = edge_a + tie(b, c, sign), edge_b + tie(c, a, sign)
    if (inside_a | inside_b | (edge_c + tie(a, b, sign))) >= wp.int64(0):
        area = float(signed_area * sign)
        z = depth_of(edge_b, edge_c, area, a.depth, b.depth, c.depth)
        if z >= 0.0 and z <= 1.0:
            key = sort_key(z, face)
            if not peel or (front_keys[row, column] != EMPTY_KEY and key > front_keys[row, column]):
                wp.atomic_min(keys, row, column, key)


@wp.kernel
def offer_faces(
    first: int,
    screen: wp.array(dtype=ScreenVertex),
    faces: wp.array(dtype=wp.vec3i),
    cull: bool,
    peel: bool,
    front_keys: wp.array2d(dtype=wp.int64),
    keys: wp.array2d(dtype=wp.int64),
    large_count: wp.array(dtype=wp.int32),
    large_faces: wp.array(dtype=wp.int32),
):
    """CUDA, one item: a face; large ones are queued."""
    face = first + wp.tid()
    corner = faces[face]
    a, b, c = screen[corner[0]], screen[corner[1]], screen[corner[2]]
    if is_drawn(a, b, c, cull):
        span = span_of(a, b, c, keys.shape[1], keys.shape[0])
        if (span.right - span.left + 1) * (span.bottom - span.top + 1) > LARGE:
            large_faces[wp.atomic_add(large_count, 0, 1)] = face
        else:
            for row in range(span.top, span.bottom + 1):
                for column in range(span.left, span.right + 1):
                    offer(row, column, face, a, b, c, peel, front_keys, keys)


@wp.kernel
def offer_large_faces(
    first: int,
    groups: int,
    screen: wp.array(dtype=ScreenVertex),
    faces: wp.array(dtype=wp.vec3i),
    peel: bool,
    front_keys: wp.array2d(dtype=wp.int64),
    keys: wp.array2d(dtype=wp.int64),
    large_count: wp.array(dtype=wp.int32),
    large_faces: wp.array(dtype=wp.int32),
):
    """CUDA, one item: a lane of a group of LANES; groups share the queue, lanes the pixels."""
    item = first + wp.tid()
    lane = item % LANES
    for i in range(item // LANES, large_count[0], groups):
        face = large_faces[i]
        corner = faces[face]
        a, b, c = screen[corner[0]], screen[corner[1]], screen[corner[2]]
        span = span_of(a, b, c, keys.shape[1], keys.shape[0])
        columns = span.right - span.left + 1
        for pixel in range(lane, columns * (span.bottom - span.top + 1), LANES):
            row, column = span.top + pixel // columns, span.left + pixel % columns
            offer(row, column, face, a, b, c, peel, front_keys, keys)


@wp.kernel
def read_keys(
    first: int,
    keys: wp.array2d(dtype=wp.int64),
    face_ids: wp.array2d(dtype=wp.int32),
    depth: wp.array2d(dtype=wp.float32),
):
    """CUDA, one item: a pixel; splits the winning key."""
    pixel = first + wp.tid()
    row, column = pixel // keys.shape[1], pixel % keys.shape[1]
    key = keys[row, column]
    if key == EMPTY_KEY:
        face_ids[row, column] = -1
        depth[row, column] = 1.0
    else:
        face_ids[row, column] = wp.int32(key & wp.int64(0x7FFFFFFF))
        depth[row, column] = wp.cast(wp.int32(key >> wp.int64(32)), wp.float32)


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
