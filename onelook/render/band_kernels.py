"""Warp kernels of the rasteriser's way on the CPU: an item is a band of rows.

There are no safe atomics between CPU threads, so every band walks the faces itself and draws those
that reach into it. What a face or a run of faces covers is found first, so that most are passed
over at a glance.
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

RUN = wp.constant(64)  # faces in a row that a band can pass over at once


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
    """Draw the part of a face that lies in the rows top..bottom."""
    span = span_of(a, b, c, face_ids.shape[1], face_ids.shape[0])
    signed_area = edge(a, b, c.x, c.y)
    sign = wp.where(signed_area > wp.int64(0), wp.int64(1), wp.int64(-1))
    area = float(signed_area * sign)
    tie_a, tie_b, tie_c = tie(b, c, sign), tie(c, a, sign), tie(a, b, sign)
    step_a = wp.int64(b.y - c.y) * wp.int64(256) * sign
    step_b = wp.int64(c.y - a.y) * wp.int64(256) * sign
    step_c = wp.int64(a.y - b.y) * wp.int64(256) * sign
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
