"""Pack charts into a square texture of an exact size, as densely as their outlines allow.

Charts are drawn as bitmaps of whole texels or small blocks of texels and placed largest first, each
at the lowest free place of its four orientations. One such packing takes a fraction of a second, so
the largest scale at which everything fits is found by trying.

C charts, K chart vertices, S scales tried side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.asset.charts import Charts
from onelook.asset.pack_kernels import SIZE_STEPS, pack_at_scale
from onelook.asset.topology import find_edges, half_edge_heads
from onelook.kernels import launch
from onelook.time_cap import require_time

Array = np.ndarray
TRIES = 4  # side by side; fixed, so that the result hangs on no thread count
LEAST_COVERAGE = 1 / 3  # of the texture: under it padding is given up,
MOST_PADDING = 0.15  # unless it takes less than this share of the texture
_COARSE, _FINE = 1.05, 1.05 ** (1 / (TRIES + 1))  # steps between scales
_EXPECTED_FILL = 0.78  # share of the texture under padded outlines, as measured
_MANY = 1000  # charts, from which on only two orientations of each are tried
_MOST_ROUNDS = 24  # of tries
_MOST_CELLS = 4096  # across the texture
_CELLS_PER_CHART = 16  # across a mean chart, at least, before cells are made smaller


@dataclass(frozen=True)
class Packing:
    """Where the charts went: uvs (K, 2) float32 0..1, origin top left; scale in texels per unit."""

    uvs: Array
    scale: float
    padding: int


def pack_charts(charts: Charts, texture_size: int, padding: int) -> Packing:
    """Place charts so that `padding` untouched texels lie between any two.

    Where that takes up so much room that the charts fill less than a third of the texture, padding
    is halved. With more charts than texels they share texels, but their UVs never overlap.
    """
    outlines = _Outlines(charts)
    size = texture_size
    while True:
        scale, places = _largest_scale(outlines, size, padding)
        is_covered = outlines.area * scale**2 > LEAST_COVERAGE * size**2
        is_padding_small = padding * outlines.size.sum() * scale < MOST_PADDING * size**2
        if scale > 0 and (is_covered or is_padding_small):
            break
        if padding > 0:
            padding //= 2
        else:
            size *= 2  # finer than the texture, for want of texels
    uvs = outlines.place(scale, places) / size
    return Packing(np.clip(uvs, 0, 1).astype(np.float32), scale * texture_size / size, padding)


def _largest_scale(outlines: _Outlines, size: int, padding: int) -> tuple[float, Array]:
    """The largest scale found that fits and its places (C, 5); 0 where none fits."""
    best, places = 0.0, np.zeros((0, 5), np.int64)
    scales = outlines.expected_scale(size, padding) * _COARSE ** (1.0 - np.arange(TRIES))
    for _ in range(_MOST_ROUNDS):
        require_time()
        if not outlines.may_fit(scales[0], size, padding):
            break
        fits, found = outlines.pack(scales, size, padding)
        first = int(np.argmax(fits))
        if fits.any():
            best, places = float(scales[first]), found[first]
            if first > 0:
                break
            scales = best * _COARSE ** np.arange(TRIES, 0.0, -1)
        elif best > 0:
            break
        else:
            scales = scales[-1] * 0.85 ** np.arange(1.0, TRIES + 1)
    if best > 0:
        scales = best * _FINE ** np.arange(TRIES, 0.0, -1)
        fits, found = outlines.pack(scales, size, padding)
        if fits.any():
            first = int(np.argmax(fits))
            best, places = float(scales[first]), found[first]
    return best, places


class _Outlines:
    """The charts' borders, ready to be drawn at any scale."""

    def __init__(self, charts: Charts):
        self.points, self.size = charts.points, charts.size
        self.count = len(charts.size)
        self.chart_of_vertex = np.empty(len(charts.points), np.int64)
        self.chart_of_vertex[charts.faces] = charts.chart[:, None]
        flat = charts.points[charts.faces]
        d1, d2 = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
        areas = np.abs(d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]) / 2
        self.area = float(areas.sum())
        half = find_edges(charts.faces).boundary()
        half = half[np.argsort(charts.chart[half // 3], kind="stable")]
        starts = np.zeros(self.count + 1, np.int32)
        np.cumsum(np.bincount(charts.chart[half // 3], minlength=self.count), out=starts[1:])
        tails, heads = charts.faces.ravel()[half], half_edge_heads(charts.faces)[half]
        edges = np.concatenate([charts.points[tails], charts.points[heads]], axis=1)
        self.edges = wp.array(edges.astype(np.float32), dtype=wp.vec4, device="cpu")
        self.starts = wp.array(starts, dtype=wp.int32, device="cpu")
        by_size = np.lexsort((-self.size.min(axis=1), -self.size.max(axis=1)))
        self.order = wp.array(by_size.astype(np.int32), dtype=wp.int32, device="cpu")

    def expected_scale(self, size: int, padding: int) -> float:
        """Texels per unit at which the padded charts should just fill a texture."""
        # a chart of w x h grows by about (padding + 1) * (w + h) + (padding + 1)^2 texels
        gap = padding + 1
        a, b = max(self.area, 1e-30), gap * float(self.size.sum())
        c = gap * gap * self.count - _EXPECTED_FILL * (size + padding) ** 2
        largest = float(self.size.max()) or 1.0
        if c >= 0:  # at best, charts of one texel fit
            return 0.5 / largest
        return min((-b + (b * b - 4 * a * c) ** 0.5) / (2 * a), 0.95 * size / largest)

    def may_fit(self, scale: float, size: int, padding: int) -> bool:
        """Whether this scale is worth trying: each chart takes a texel and its padding at least."""
        has_room = self.count * (padding + 1) ** 2 <= (size + padding) ** 2
        largest = float(self.size.max())
        return has_room and (largest == 0 or scale * largest > 1e-3)

    def pack(self, scales: Array, size: int, padding: int) -> tuple[Array, Array]:
        """Try scales: -> which fit (S,) bool, and places (S, C, 5) int.

        A place is column, row, quarter turns, and width and height before turning; in texels.
        """
        tries = len(scales)
        cell = max(1, padding)
        mean_side = scales.max() * (self.area / self.count) ** 0.5
        while cell > 1 and mean_side < _CELLS_PER_CHART * cell:
            cell //= 2
        cell = max(cell, size // _MOST_CELLS)
        gap = -(-padding // cell)  # in cells
        side = size // cell + gap
        cells = np.floor(self.size * (scales / cell)[:, None, None] + 1e-3).astype(np.int32) + 1
        box = int((cells + gap).prod(axis=2).max())
        places = wp.zeros((tries, 3 * self.count), dtype=wp.int32, device="cpu")
        fits = wp.zeros(tries, dtype=wp.int32, device="cpu")
        inputs = [
            self.count,
            self.order,
            self.edges,
            self.starts,
            wp.array(cells.reshape(tries, -1), dtype=wp.int32, device="cpu"),
            wp.array((scales / cell).astype(np.float32), dtype=wp.float32, device="cpu"),
            gap,
            side,
            4 if self.count < _MANY else 2,  # orientations
            wp.empty((tries, side * (side + 1)), dtype=wp.int16, device="cpu"),
            wp.empty((tries, side * (side + 1)), dtype=wp.int16, device="cpu"),
            wp.empty((tries, side), dtype=wp.int16, device="cpu"),
            wp.empty((tries, SIZE_STEPS**2), dtype=wp.int32, device="cpu"),
            wp.empty((tries, box), dtype=wp.uint8, device="cpu"),
            wp.empty((tries, box), dtype=wp.vec2i, device="cpu"),
            wp.empty((tries, int(cells.max()) + 1), dtype=wp.int32, device="cpu"),
            wp.empty((tries, 4 * (gap + 1) * box), dtype=wp.vec3i, device="cpu"),
            places,
            fits,
        ]
        launch(pack_at_scale, tries, inputs, "cpu", pieces=tries)
        found = places.numpy().reshape(tries, self.count, 3) * (cell, cell, 1)
        return fits.numpy() > 0, np.concatenate([found, cells * cell], axis=2)

    def place(self, scale: float, places: Array) -> Array:
        """Chart vertices in texels: (K, 2) float64."""
        of = self.chart_of_vertex
        x, y = (self.points * scale).T
        column, row, turns, w, h = places[of].T
        turned_x = np.choose(turns, [x, h - y, w - x, y])
        turned_y = np.choose(turns, [y, x, h - y, w - x])
        return np.stack([turned_x + column, turned_y + row], axis=1)
