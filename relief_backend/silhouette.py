"""The subject's outline on a grid that is as fine as the outline needs.

S picture side in pixels; J, I grid rows (upward) and columns. Pixel (r, c) covers the square from
(r, c) to (r + 1, c + 1), so its centre lies at (r + 0.5, c + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from onelook.errors import ForegroundError
from relief_backend.config import ReliefConfig

Array = np.ndarray

_MARGIN = 4  # cells around the outline; cubic interpolation reaches two


@dataclass(frozen=True)
class Silhouette:
    """Signed distance to the outline at grid points, and where the grid lies in the picture.

    level (J, I) float32: distance in cells, positive inside, exact near the outline, at least
    right in sign and order elsewhere. Row j, column i is the picture's point
    (bottom - j * cell, left + i * cell), in pixels.
    """

    level: Array
    cell: float
    left: float
    bottom: float

    @property
    def side(self) -> float:
        """Longest side of the outline in cells."""
        inside = self.level > 0
        return float(max(inside.any(axis=0).sum(), inside.any(axis=1).sum()))


def trace_silhouette(alpha: Array, config: ReliefConfig) -> Silhouette:
    """alpha (S, S) float32 0..1 -> the 0.5 contour of its parts that are worth a body.

    Raises ForegroundError when alpha stays below 0.5 everywhere.
    """
    alpha = _drop_small_parts(alpha, config.smallest_part)
    mask = alpha >= 0.5
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = int(max(bottom - top, right - left))
    pad = 2 + int(np.ceil(0.05 * side))  # room for blurs; transparent beyond the picture's border
    alpha = cv2.copyMakeBorder(
        alpha[top:bottom, left:right], pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0.0
    )
    mask = alpha >= 0.5

    shape = bottom - top, right - left
    best, least = None, np.inf
    for cells, smoothing in _attempts(side, mask.sum() / side**2, config):
        grid = _resample(alpha, shape, pad, side / cells, smoothing)
        loss = _loss(grid, mask)
        if loss < least:
            best, least = grid, loss
        if loss <= config.outline_loss:
            break
    return Silhouette(
        level=_signed_distance(best),
        cell=best.cell,
        left=float(left - pad + best.left),
        bottom=float(top - pad + best.bottom),
    )


def _drop_small_parts(alpha: Array, smallest_part: float) -> Array:
    count, labels, stats, _ = cv2.connectedComponentsWithStats((alpha >= 0.5).astype(np.uint8))
    if count == 1:
        raise ForegroundError(
            "no part of the picture is more than half opaque, so there is no subject; "
            "use a picture of one solid object"
        )
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    kept = areas >= smallest_part * areas.max()
    kept[0] = True  # what lies outside: its soft fringe belongs to the parts
    return alpha if kept.all() else np.where(kept[labels], alpha, 0.0)


def _attempts(side: int, share: float, config: ReliefConfig) -> list[tuple[int, float]]:
    """(cells on the longest side, smoothing) to try: smooth first, finer while the outline suffers.

    side in pixels; share: area of the silhouette over side squared. Marching cubes makes about
    seven faces, front and back together, for each cell of the silhouette.
    """

    def cells_for(faces: int, fewest: int, most: int) -> int:
        return int(np.clip(np.sqrt(faces / (7 * share)), fewest, most))

    resolved = max(2 * side, 8)  # finer than half a pixel shows nothing new
    usual = min(cells_for(config.face_target, config.cells_min, config.cells_max), resolved)
    finest = min(cells_for(config.faces_most, usual, config.cells_finest), resolved)
    steps = [usual, int(1.4 * usual), 2 * usual, int(2.8 * usual)]
    tries = [(usual, 2.0), *((n, 1.0) for n in steps if n < finest)]
    return [*tries, (finest, 1.0), (finest, 0.5), (finest, 0.0)]


@dataclass(frozen=True)
class _Grid:
    """Coverage (J, I) 0..1 at grid points; left and bottom in pixels of the padded picture.

    blur: standard deviation, in cells, that a sharp edge of the picture has on the grid.
    """

    coverage: Array
    cell: float
    blur: float
    left: float
    bottom: float

    def rows(self) -> Array:
        return self.bottom - np.arange(len(self.coverage)) * self.cell

    def columns(self) -> Array:
        return self.left + np.arange(self.coverage.shape[1]) * self.cell


def _resample(
    alpha: Array, shape: tuple[int, int], pad: int, cell: float, smoothing: float
) -> _Grid:
    """Coverage on a grid around the subject, which has `shape` and lies `pad` from the border.

    smoothing: 1 blurs by half a cell or 0.6 pixel, whichever is more: enough to hide the pixels. At
    0 the subject gains a trifle instead, so that pixels that meet at a corner are joined.
    """
    sigma = smoothing * max(0.5 * cell, 0.6)
    alpha = cv2.GaussianBlur(alpha, (0, 0), sigma) if sigma > 0.2 else np.minimum(1.06 * alpha, 1)
    counts = [int(np.ceil(extent / cell)) + 2 * _MARGIN + 1 for extent in shape]
    grid = _Grid(
        np.empty(counts, np.float32),
        cell,
        blur=np.hypot(sigma, 0.5) / cell,  # pixels and linear interpolation: half a pixel
        left=pad - _MARGIN * cell,
        bottom=pad + shape[0] + _MARGIN * cell,
    )
    grid.coverage[:] = bilinear_grid(alpha, grid.rows() - 0.5, grid.columns() - 0.5)
    return grid


def bilinear_grid(image: Array, rows: Array, columns: Array) -> Array:
    """image (H, W) at every pair of rows (J,) and columns (I,), in index units -> (J, I).

    Positions beyond the border read the border.
    """
    for axis, at in enumerate((rows, columns)):
        at = np.clip(at, 0, image.shape[axis] - 1)
        low = np.minimum(at.astype(int), max(image.shape[axis] - 2, 0))
        part = np.expand_dims((at - low).astype(np.float32), 1 - axis)
        after = np.minimum(low + 1, image.shape[axis] - 1)
        image = image.take(low, axis) * (1 - part) + image.take(after, axis) * part
    return image


def _loss(grid: _Grid, mask: Array) -> float:
    """How much of the picture's outline the grid has lost, as a share of the subject's area.

    Pixels on the wrong side, and those two pixels deep in it ten times: so the loss of a hair or of
    a narrow gap weighs more than a rounded corner. Plus the difference in area, which still tells
    where the grid is finer than the pixels.
    """
    rows = (grid.bottom - (np.arange(mask.shape[0]) + 0.5)) / grid.cell
    columns = (np.arange(mask.shape[1]) + 0.5 - grid.left) / grid.cell
    drawn = bilinear_grid(grid.coverage, rows, columns) >= 0.5
    wrong = drawn ^ mask
    disc = np.ones((5, 5), np.uint8)
    deep_in, deep_out = (cv2.erode(side.astype(np.uint8), disc) > 0 for side in (drawn, ~drawn))
    deep = wrong & (deep_in | deep_out)
    area = np.count_nonzero(mask)
    drawn_area = np.count_nonzero(grid.coverage >= 0.5) * grid.cell**2
    pixels = np.count_nonzero(wrong) + 10 * np.count_nonzero(deep)
    return (pixels + abs(drawn_area - area) / 4) / area


def _signed_distance(grid: _Grid) -> Array:
    """Coverage -> distance to the 0.5 contour in cells, positive inside.

    Near the outline it follows from how blurred the edge is: the logistic function with slope 1.702
    is the normal distribution within 1 %. Farther away it is the distance between grid points.
    """
    inside = grid.coverage >= 0.5
    coverage = np.clip(grid.coverage, 0.02, 0.98)
    near = grid.blur / 1.702 * np.log(coverage / (1 - coverage))
    far = np.where(inside, _grid_distance(inside), -_grid_distance(~inside))
    distance = np.where(np.abs(far) < 1.5, np.clip(near, -1.5, 1.5), far - 0.5 * np.sign(far))
    # A contour through a grid point would make a part of no width.
    return np.where(inside, np.maximum(distance, 0.02), np.minimum(distance, -0.02))


def _grid_distance(side: Array) -> Array:
    """Distance of each point of `side` to the nearest grid point outside it.

    OpenCV's last bits depend on the number of threads; but the square is a whole number.
    """
    rough = cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(np.square(rough, dtype=np.float64))).astype(np.float32)
