"""Warp kernels of the rasteriser's way on CUDA: an item is a face.

Faces compete for a pixel by an atomic minimum of depth << 32 | face. Large faces are queued and
left to groups of threads, so that no thread walks a whole picture.
"""

from __future__ import annotations

import warp as wp

from onelook.render.raster_kernels import (
    ScreenVertex,
    depth_of,
    edge,
    is_drawn,
    sort_key,
    span_of,
    tie,
)

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

EMPTY_KEY = wp.constant(wp.int64((1 << 63) - 1))
LARGE = wp.constant(1024)  # pixels in the box of a face that one thread should not walk
LANES = wp.constant(256)  # threads that share a large face


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
    """Let `face` compete for one pixel."""
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
    """One item: a face; large ones are queued."""
    face = first + wp.tid()
    corner = faces[face]
    a, b, c = screen[corner[0]], screen[corner[1]], screen[corner[2]]
    if is_drawn(a, b, c, cull):
        span = span_of(a, b, c, keys.shape[1], keys.shape[0])
        columns, lines = span.right - span.left + 1, span.bottom - span.top + 1
        if columns > 0 and lines > 0 and columns * lines > LARGE:
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
    """One item: a lane of a group of LANES; groups share the queue, lanes the pixels."""
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
    """One item: a pixel; splits the winning key."""
    pixel = first + wp.tid()
    row, column = pixel // keys.shape[1], pixel % keys.shape[1]
    key = keys[row, column]
    if key == EMPTY_KEY:
        face_ids[row, column] = -1
        depth[row, column] = 1.0
    else:
        face_ids[row, column] = wp.int32(key & wp.int64(0x7FFFFFFF))
        depth[row, column] = wp.cast(wp.int32(key >> wp.int64(32)), wp.float32)
