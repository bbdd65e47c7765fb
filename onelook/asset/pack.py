"""Pack charts into a square texture of an exact size, as densely as their outlines allow.

Charts fall, largest first, onto the skyline of those already placed, each in the orientation and
column where its top ends lowest ("Tetris" packing: Levy et al., "Least Squares Conformal Maps for
Automatic Texture Atlas Generation", SIGGRAPH 2002, section 4). One such packing takes a fraction of
a second, so the scale is found by trying.

C charts, M faces, K chart vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.asset.charts import Charts
from onelook.kernels import launch

Array = np.ndarray
CANDIDATES = 4  # scales tried side by side; fixed, so that the result hangs on no thread count
_EXPECTED_FILL = 0.66  # share of the texture under padded outlines, as measured
_NOWHERE = wp.constant(1 << 30)


@dataclass(frozen=True)
class Packing:
    """Where the charts went: uvs (K, 2) float32 0..1, origin top left; scale in texels per unit."""

    uvs: Array
    scale: float
    padding: int


def pack_charts(charts: Charts, texture_size: int, padding: int) -> Packing:
    """Place charts so that `padding` untouched texels lie between any two.

    Where the charts are too many for that (they would cover less than a third of the texture),
    padding is given up step by step. Raises nothing: with more charts than texels, charts share
    texels, but their UVs never overlap.
    """
    outlines = _Outlines(charts)
    area = float(outlines.area)
    virtual_size = texture_size
    while True:
        scale, places = _best_scale(outlines, virtual_size, padding)
        good = scale > 0 and area * scale**2 > virtual_size**2 / 3
        if good or (scale > 0 and padding == 0):
            break
        if padding > 0:
            padding //= 2
        else:
            virtual_size *= 2
    uvs = outlines.place(scale, places) / virtual_size
    return Packing(
        np.clip(uvs, 0, 1).astype(np.float32), scale * texture_size / virtual_size, padding
    )


def _best_scale(outlines: _Outlines, size: int, padding: int) -> tuple[float, Array]:
    """The largest scale found that fits, with its places (C, 3); scale 0 where none fits."""
    best, places = 0.0, np.zeros((0, 3), np.int32)
    guess = outlines.expected_scale(size, padding)
    if guess <= 0:
        return best, places
    scales = guess * 1.06 ** np.array([1.0, 0.0, -1.0, -2.0])
    for _ in range(10):
        heights, found = outlines.pack(scales, size, padding)
        fits = np.flatnonzero(heights <= size)
        if len(fits) and scales[fits[0]] > best:
            best, places = float(scales[fits[0]]), found[fits[0]]
        if best == 0:
            scales = scales[-1] * 0.85 ** np.arange(1, CANDIDATES + 1)
        elif len(fits) == CANDIDATES and fits[0] == 0 and scales[0] / scales[1] > 1.04:
            scales = best * 1.06 ** np.arange(CANDIDATES, 0, -1)
        elif scales[0] / scales[1] > 1.04:
            scales = best * 1.06 ** (np.arange(CANDIDATES, 0, -1) / (CANDIDATES + 1))
        else:
            break
    return best, places


class _Outlines:
    """The charts' triangles, ready to be drawn at any scale as spans per column and per row."""

    def __init__(self, charts: Charts):
        self.points, self.size = charts.points, charts.size
        self.count = len(charts.size)
        self.chart_of_vertex = np.empty(len(charts.points), np.int64)
        self.chart_of_vertex[charts.faces] = charts.chart[:, None]
        flat = charts.points[charts.faces]
        d1, d2 = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
        self.area = np.abs(d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]).sum() / 2
        order = np.argsort(charts.chart, kind="stable")
        corners = charts.points[charts.faces[order]].astype(np.float32)  # (M, 3, 2)
        edges = np.concatenate([corners, np.roll(corners, -1, axis=1)], axis=2)  # (M, 3, 4)
        starts = np.zeros(self.count + 1, np.int32)
        np.cumsum(3 * np.bincount(charts.chart, minlength=self.count), out=starts[1:])
        self.edges = wp.array(edges.reshape(-1, 4), dtype=wp.vec4, device="cpu")
        self.starts = wp.array(starts, dtype=wp.int32, device="cpu")
        largest = charts.size.max(axis=1)
        self.order = np.lexsort((-charts.size.min(axis=1), -largest)).astype(np.int32)

    def expected_scale(self, size: int, padding: int) -> float:
        """Texels per unit at which the padded charts should just fill a texture."""
        # each chart of w x h covers area + (padding + 1) * (w + h) + (padding + 1)^2 texels
        gap = padding + 1
        a, b = self.area, gap * float(self.size.sum())
        c = gap * gap * self.count - _EXPECTED_FILL * (size + padding) ** 2
        if c >= 0 or a <= 0:
            # more charts than room: only a scale that makes each of them one texel can fit
            return 0.5 / max(float(self.size.max()), 1e-30) if c < size**2 else 0.0
        limit = size / max(float(self.size.max()), 1e-30)
        return min((-b + (b * b - 4 * a * c) ** 0.5) / (2 * a), 0.999 * limit)

    def pack(self, scales: Array, size: int, padding: int) -> tuple[Array, Array]:
        """Try scales side by side: -> heights (S,) and places (S, C, 3) of column, row, turns."""
        width = size + padding
        tries = len(scales)
        cells = np.floor(self.size[None] * scales[:, None, None] + 1e-3).astype(np.int32) + 1
        first_column = _starts(cells[..., 0])
        first_row = _starts(cells[..., 1])
        columns = wp.empty(int(cells[..., 0].sum()), dtype=wp.vec2i, device="cpu")
        rows = wp.empty(int(cells[..., 1].sum()), dtype=wp.vec2i, device="cpu")
        shape = [_ints(cells.reshape(tries, -1)), _ints(first_column), _ints(first_row)]
        shape += [columns, rows]
        floats = wp.array(scales.astype(np.float32), dtype=wp.float32, device="cpu")
        inputs = [self.count, self.edges, self.starts, floats, *shape]
        launch(_draw_outline, tries * self.count, inputs, "cpu")
        places = wp.zeros((tries, 3 * self.count), dtype=wp.int32, device="cpu")
        heights = wp.zeros(tries, dtype=wp.int32, device="cpu")
        skyline = wp.zeros((tries, width), dtype=wp.int32, device="cpu")
        outline = wp.zeros((tries, 4 * width), dtype=wp.vec2i, device="cpu")
        stride = max(1, size // 2048)
        inputs = [self.count, _ints(self.order), *shape, padding, stride]
        inputs += [skyline, outline, places, heights]
        launch(_drop_charts, tries, inputs, "cpu", pieces=tries)
        return heights.numpy(), places.numpy().reshape(tries, self.count, 3)

    def place(self, scale: float, places: Array) -> Array:
        """Chart vertices in texels: (K, 2) float64."""
        cells = np.floor(self.size * np.float64(scale) + 1e-3) + 1
        of = self.chart_of_vertex
        x, y = (self.points * scale).T
        w, h = cells[of].T
        turns = places[of, 2]
        turned_x = np.choose(turns, [x, h - y, w - x, y])
        turned_y = np.choose(turns, [y, x, h - y, w - x])
        return np.stack([turned_x + places[of, 0], turned_y + places[of, 1]], axis=1)


def _starts(counts: Array) -> Array:
    """Where each run begins when runs of these lengths follow one another."""
    flat = counts.ravel().astype(np.int64)
    return (np.cumsum(flat) - flat).reshape(counts.shape).astype(np.int32)


def _ints(values: Array) -> wp.array:
    return wp.array(np.ascontiguousarray(values, np.int32), dtype=wp.int32, device="cpu")


@wp.func
def _span_line(
    spans: wp.array(dtype=wp.vec2i),
    start: int,
    cells: int,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
):
    """Widen the spans (lowest, highest cell per column) by one line."""
    if x0 > x1:
        x0, y0, x1, y1 = x1, y1, x0, y0
    slope = wp.float32(0.0)
    if x1 > x0:
        slope = (y1 - y0) / (x1 - x0)
    for x in range(int(x0), wp.min(int(x1), cells - 1) + 1):
        ya = y0 + slope * (wp.max(float(x), x0) - x0)
        yb = y0 + slope * (wp.min(float(x + 1), x1) - x0)
        if x1 <= x0:
            yb = y1
        low = int(wp.max(wp.min(ya, yb) - 1.0e-3, 0.0))
        high = int(wp.max(ya, yb) + 1.0e-3)
        span = spans[start + x]
        spans[start + x] = wp.vec2i(wp.min(span[0], low), wp.max(span[1], high))


@wp.kernel
def _draw_outline(
    first: int,
    count: int,
    edges: wp.array(dtype=wp.vec4),
    starts: wp.array(dtype=wp.int32),
    scales: wp.array(dtype=wp.float32),
    cells: wp.array(dtype=wp.int32, ndim=2),
    first_column: wp.array(dtype=wp.int32, ndim=2),
    first_row: wp.array(dtype=wp.int32, ndim=2),
    columns: wp.array(dtype=wp.vec2i),
    rows: wp.array(dtype=wp.vec2i),
):
    item = first + wp.tid()
    t = item // count
    c = item % count
    width = cells[t, 2 * c]
    height = cells[t, 2 * c + 1]
    column = first_column[t, c]
    row = first_row[t, c]
    for x in range(width):
        columns[column + x] = wp.vec2i(_NOWHERE, -1)
    for y in range(height):
        rows[row + y] = wp.vec2i(_NOWHERE, -1)
    for e in range(starts[c], starts[c + 1]):
        edge = edges[e] * scales[t]
        _span_line(columns, column, width, edge[0], edge[1], edge[2], edge[3])
        _span_line(rows, row, height, edge[1], edge[0], edge[3], edge[2])
    for x in range(width):
        span = columns[column + x]
        columns[column + x] = wp.vec2i(wp.min(span[0], height - 1), wp.min(span[1], height - 1))
    for y in range(height):
        span = rows[row + y]
        rows[row + y] = wp.vec2i(wp.min(span[0], width - 1), wp.min(span[1], width - 1))


@wp.func
def _turned_span(
    turns: int, j: int, w: int, h: int, column: int, row: int,
    columns: wp.array(dtype=wp.vec2i), rows: wp.array(dtype=wp.vec2i),
):  # fmt: skip
    """Lowest and highest cell in column j of a chart of w x h cells after quarter turns."""
    span = wp.vec2i(0, 0)
    if turns == 0:
        span = columns[column + j]
    elif turns == 1:
        span = rows[row + h - 1 - j]
    elif turns == 2:
        s = columns[column + w - 1 - j]
        span = wp.vec2i(h - 1 - s[1], h - 1 - s[0])
    else:
        s = rows[row + j]
        span = wp.vec2i(w - 1 - s[1], w - 1 - s[0])
    return span


@wp.kernel
def _drop_charts(
    first: int,
    count: int,
    order: wp.array(dtype=wp.int32),
    cells: wp.array(dtype=wp.int32, ndim=2),
    first_column: wp.array(dtype=wp.int32, ndim=2),
    first_row: wp.array(dtype=wp.int32, ndim=2),
    columns: wp.array(dtype=wp.vec2i),
    rows: wp.array(dtype=wp.vec2i),
    padding: int,
    stride: int,
    skyline: wp.array(dtype=wp.int32, ndim=2),
    outline: wp.array(dtype=wp.vec2i, ndim=2),
    places: wp.array(dtype=wp.int32, ndim=2),
    heights: wp.array(dtype=wp.int32),
):
    t = first + wp.tid()
    width = skyline.shape[1]
    used = wp.int32(0)
    for rank in range(count):
        c = order[rank]
        best = float(wp.inf)
        best_x = wp.int32(-1)
        best_y = wp.int32(0)
        best_turns = wp.int32(0)
        for turns in range(4):
            w = cells[t, 2 * c]
            h = cells[t, 2 * c + 1]
            span_count = w
            top = h
            if turns % 2 == 1:
                span_count = h
                top = w
            padded = span_count + padding
            if padded <= width:
                for j in range(padded):  # the outline grown by `padding` to the right and upwards
                    low = int(_NOWHERE)
                    high = wp.int32(-1)
                    for s in range(wp.max(j - padding, 0), wp.min(j, span_count - 1) + 1):
                        span = _turned_span(
                            turns, s, w, h, first_column[t, c], first_row[t, c], columns, rows
                        )
                        low = wp.min(low, span[0])
                        high = wp.max(high, span[1])
                    outline[t, turns * width + j] = wp.vec2i(low, high + padding)
                x = wp.int32(0)
                while x + padded <= width:
                    y = wp.int32(0)
                    covered = wp.int32(0)
                    j = wp.int32(0)
                    while j < padded and float(y + top) <= best:
                        gap = skyline[t, x + j] - outline[t, turns * width + j][0]
                        covered += gap
                        y = wp.max(y, gap)
                        j += 1
                    if j == padded:
                        wasted = float(y * padded - covered) / float(padded)
                        if wasted + float(y + top) < best:
                            best = wasted + float(y + top)
                            best_x = x
                            best_y = y
                            best_turns = turns
                    x += stride
        if best_x < 0:  # wider than the texture
            heights[t] = _NOWHERE
            return
        padded = cells[t, 2 * c + best_turns % 2] + padding
        for j in range(padded):
            top = best_y + outline[t, best_turns * width + j][1] + 1
            skyline[t, best_x + j] = top
            used = wp.max(used, top)
        places[t, 3 * c] = best_x
        places[t, 3 * c + 1] = best_y
        places[t, 3 * c + 2] = best_turns
    heights[t] = used - padding
