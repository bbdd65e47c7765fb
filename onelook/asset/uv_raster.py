"""Which face covers which texel, exactly: UV coordinates are rounded to integers before any test.

A texel belongs to the face that covers its centre. Because faces that share an edge share its
rounded end points, and a centre on an edge goes to one side by the top-left rule, a layout without
overlaps gives every texel to one face at most and leaves no gaps along edges. A texel whose centre
no face covers may still be touched by one, at a chart's border or by a sliver; filtering reads it.

K vertices, M faces, T texture size, P texels.
"""

from __future__ import annotations

import numpy as np
import warp as wp

from onelook.kernels import launch

Array = np.ndarray
SUBTEXELS = 1024  # steps per texel: about what a float32 UV resolves in a texture of 8192
BAND_ROWS = 8  # rows that one kernel item draws, alone
_STEPS = wp.constant(SUBTEXELS)
_STEPS64 = wp.constant(wp.int64(SUBTEXELS))
_BAND = wp.constant(BAND_ROWS)


class UvRaster:
    """The faces of a UV layout, sorted by the rows they touch."""

    def __init__(self, uvs: Array, faces: Array, texture_size: int, device: str):
        """uvs (K, 2) float32 0..1, faces (M, 3) int32; texture_size at most 65536."""
        self.texture_size, self.device = texture_size, device
        scaled = np.rint(uvs.astype(np.float64) * (texture_size * SUBTEXELS)).astype(np.int32)
        corners = scaled[faces]  # (M, 3, 2)
        rows = corners[..., 1]
        band_steps = BAND_ROWS * SUBTEXELS
        band_count = -(-texture_size // BAND_ROWS)
        low = np.clip(rows.min(axis=1) // band_steps, 0, band_count - 1)
        high = np.clip(rows.max(axis=1) // band_steps, 0, band_count - 1)
        counts = high - low + 1
        face = np.repeat(np.arange(len(faces), dtype=np.int32), counts)
        band = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - low, counts)
        starts = np.zeros(band_count + 1, np.int32)
        np.cumsum(np.bincount(band, minlength=band_count), out=starts[1:])
        face = face[np.argsort(band.astype(np.uint16), kind="stable")]  # ascending in each band
        self.corners = wp.array(corners.reshape(-1, 6), dtype=wp.int32, device=device)
        self._starts = wp.array(starts, dtype=wp.int32, device=device)
        self._faces = wp.array(face, dtype=wp.int32, device=device)

    def draw(self, first_row: int, row_count: int, touched: bool = False) -> wp.array:
        """Face of each texel centre in some rows: -> (row_count, T) int32, -1 where there is none.

        touched: a texel whose centre is free goes to the first face that touches it at all.
        first_row is a multiple of BAND_ROWS.
        """
        face_map = wp.full((row_count, self.texture_size), -1, dtype=wp.int32, device=self.device)
        bands = -(-row_count // BAND_ROWS)
        inputs = [first_row, self.corners, self._starts, self._faces, face_map]
        launch(_draw_band, bands, [*inputs, 0], self.device)
        if touched:
            launch(_draw_band, bands, [*inputs, 1], self.device)
        return face_map


def texel_faces(uvs: Array, faces: Array, texture_size: int, device: str = "cpu") -> Array:
    """The whole texture at once: uvs (K, 2), faces (M, 3) -> face of each texel (T, T) int32 or -1.

    Where faces overlap, the one with the lowest index has the texel.
    """
    return UvRaster(uvs, faces, texture_size, device).draw(0, texture_size).numpy()


@wp.func
def edge_side(ax: int, ay: int, bx: int, by: int, x: int, y: int) -> wp.int64:
    """Twice the area of a, b and (x, y), in square subtexels."""
    return wp.int64(bx - ax) * wp.int64(y - ay) - wp.int64(by - ay) * wp.int64(x - ax)


@wp.func
def _inside_from(ax: int, ay: int, bx: int, by: int, touched: int) -> wp.int64:
    """The least side value at a texel's centre that counts as inside of an edge.

    For centres 0 on top and left edges, else 1. For touched texels, that of the centre of a texel
    whose innermost corner lies on the edge.
    """
    if touched == 1:
        return -wp.int64(wp.abs(bx - ax) + wp.abs(by - ay)) * (_STEPS64 / wp.int64(2))
    if by < ay or (by == ay and bx > ax):
        return wp.int64(0)
    return wp.int64(1)


@wp.kernel
def _draw_band(
    first: int,
    first_row: int,
    corners: wp.array(dtype=wp.int32, ndim=2),
    starts: wp.array(dtype=wp.int32),
    faces: wp.array(dtype=wp.int32),
    face_map: wp.array(dtype=wp.int32, ndim=2),
    touched: int,
):
    item = first + wp.tid()
    band = first_row / _BAND + item
    row_start = item * _BAND
    row_stop = wp.min(row_start + _BAND, face_map.shape[0])
    half = _STEPS / 2
    # first and last texel whose centre (or, for touched ones, any point) is within a face's bounds
    before = half - 1
    after = half
    if touched == 1:
        before = 0
        after = _STEPS
    for e in range(starts[band], starts[band + 1]):
        f = faces[e]
        ax = corners[f, 0]
        ay = corners[f, 1]
        bx = corners[f, 2]
        by = corners[f, 3]
        cx = corners[f, 4]
        cy = corners[f, 5]
        area = edge_side(ax, ay, bx, by, cx, cy)
        if area < wp.int64(0):
            bx, by, cx, cy = cx, cy, bx, by
        if area != wp.int64(0):
            x_start = wp.max((wp.min(wp.min(ax, bx), cx) + before) / _STEPS, 0)
            x_stop = wp.min((wp.max(wp.max(ax, bx), cx) + after) / _STEPS, face_map.shape[1])
            y_low = (wp.min(wp.min(ay, by), cy) + before) / _STEPS
            y_high = (wp.max(wp.max(ay, by), cy) + after) / _STEPS
            y_start = wp.max(y_low - first_row, row_start)
            y_stop = wp.min(y_high - first_row, row_stop)
            x = x_start * _STEPS + half
            from_ab = _inside_from(ax, ay, bx, by, touched)
            from_bc = _inside_from(bx, by, cx, cy, touched)
            from_ca = _inside_from(cx, cy, ax, ay, touched)
            for row in range(y_start, y_stop):
                y = (first_row + row) * _STEPS + half
                ab = edge_side(ax, ay, bx, by, x, y) - from_ab
                bc = edge_side(bx, by, cx, cy, x, y) - from_bc
                ca = edge_side(cx, cy, ax, ay, x, y) - from_ca
                for column in range(x_start, x_stop):
                    if (ab | bc | ca) >= wp.int64(0) and face_map[row, column] < 0:
                        face_map[row, column] = f
                    ab += wp.int64(ay - by) * _STEPS64
                    bc += wp.int64(by - cy) * _STEPS64
                    ca += wp.int64(cy - ay) * _STEPS64


@wp.func
def _texel_weights(corners: wp.array(dtype=wp.int32, ndim=2), f: int, x: int, y: int) -> wp.vec3:
    """Barycentric coordinates of subtexel (x, y) in a face, held inside it."""
    ax = corners[f, 0]
    ay = corners[f, 1]
    bx = corners[f, 2]
    by = corners[f, 3]
    cx = corners[f, 4]
    cy = corners[f, 5]
    scale = wp.float64(1.0) / wp.float64(edge_side(ax, ay, bx, by, cx, cy))
    a = wp.max(float(wp.float64(edge_side(bx, by, cx, cy, x, y)) * scale), 0.0)
    b = wp.max(float(wp.float64(edge_side(cx, cy, ax, ay, x, y)) * scale), 0.0)
    c = wp.max(float(wp.float64(edge_side(ax, ay, bx, by, x, y)) * scale), 0.0)
    return wp.vec3(a, b, c) / (a + b + c)


@wp.kernel
def texel_geometry(
    first: int,
    texels: wp.array(dtype=wp.int32),
    texel_face: wp.array(dtype=wp.int32),
    texture_size: int,
    shift_x: int,
    shift_y: int,
    corners: wp.array(dtype=wp.int32, ndim=2),
    faces: wp.array(dtype=wp.int32, ndim=2),
    vertices: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    weights: wp.array(dtype=wp.vec3),
    points: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
):
    """Barycentric coordinates, position and unit normal at texel centres moved by a shift."""
    i = first + wp.tid()
    f = texel_face[i]
    x = (texels[i] % texture_size) * _STEPS + _STEPS / 2 + shift_x
    y = (texels[i] / texture_size) * _STEPS + _STEPS / 2 + shift_y
    w = _texel_weights(corners, f, x, y)
    a = faces[f, 0]
    b = faces[f, 1]
    c = faces[f, 2]
    weights[i] = w
    points[i] = w[0] * vertices[a] + w[1] * vertices[b] + w[2] * vertices[c]
    normal = w[0] * normals[a] + w[1] * normals[b] + w[2] * normals[c]
    if wp.length(normal) < 1.0e-6:
        normal = normals[a]
    directions[i] = wp.normalize(normal)
