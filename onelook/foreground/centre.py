"""Put the subject in the middle of a transparent square.

H rows, W columns; S side of the square.
"""

from __future__ import annotations

import numpy as np

from onelook.foreground.colours import spread_colours

Array = np.ndarray

MARGIN = 1.2  # side of the square over the longest side of the subject's box; TRELLIS's ratio
SOLID = 0.8  # alpha from which a pixel counts for the box; TRELLIS's rule
VISIBLE = 0.2  # alpha from which a pixel must not be cut off


def centre(image: Array) -> Array:
    """(H, W, 4) uint8 straight alpha -> (S, S, 4), the subject's box in the middle.

    Pixels are moved, never resampled. The box holds what is at least `SOLID`, and everything
    `VISIBLE` where that would not fit the margin (hair, glass). S is `MARGIN` times its longest
    side.
    """
    alpha = image[..., 3] / 255
    solid = _box(alpha > min(SOLID, 0.8 * alpha.max()))
    visible = _box(alpha >= min(VISIBLE, alpha.max()))
    square = _square(solid)
    fits = (visible[:, 0] >= square[:, 0]).all() and (visible[:, 1] <= square[:, 1]).all()
    return _cut(image, square if fits else _square(visible))


def pad_to_square(image: Array) -> Array:
    """(H, W, 4) uint8 -> (S, S, 4) with S = max(H, W): transparent bars, nothing cropped."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return _cut(image, np.array([[-top, side - top], [-left, side - left]]))


def extend_colours(image: Array) -> Array:
    """The colours of visible pixels go on under the transparent ones: (H, W, 4) uint8, a copy.

    Whatever filters the picture then finds no foreign colour beyond the subject's outline.
    """
    hidden = image[..., 3] == 0
    if not hidden.any() or hidden.all():
        return image.copy()
    filled = spread_colours(image[..., :3], image[..., 3].astype(np.float32) / 255)
    result = image.copy()
    result[..., :3][hidden] = (filled[hidden] + 0.5).clip(0, 255).astype(np.uint8)
    return result


def _box(where: Array) -> Array:
    """[[first row, end row], [first column, end column]] of the True pixels."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return np.array([[rows[0], rows[-1] + 1], [columns[0], columns[-1] + 1]])


def _square(box: Array) -> Array:
    """The square around a box's middle, as rows and columns of the image; may lie outside it."""
    side = max(1, int(MARGIN * (box[:, 1] - box[:, 0]).max()))
    first = (box.sum(axis=1) - side) // 2
    return np.stack([first, first + side], axis=1)


def _cut(image: Array, square: Array) -> Array:
    """That part of the image, transparent where the square reaches beyond it."""
    (top, bottom), (left, right) = square
    height, width = image.shape[:2]
    result = np.zeros((bottom - top, right - left, 4), np.uint8)
    rows = slice(max(0, top), min(height, bottom))
    columns = slice(max(0, left), min(width, right))
    result[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = image[
        rows, columns
    ]
    return result
