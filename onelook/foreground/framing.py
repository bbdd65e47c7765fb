"""Frame a subject as the original InstantMesh and TripoSR do.

H rows, W columns, S side of a square.
"""

from __future__ import annotations

import numpy as np

from onelook.errors import ForegroundError

Array = np.ndarray

RATIO = 0.85  # of the subject's longer side to the picture's


def resize_foreground(image: Array, ratio: float = RATIO) -> Array:
    """(H, W, 4) uint8 -> (S, S, 4): the subject in the middle, `ratio` of the side. Moves pixels,
    resamples none; the subject's last row and column are lost, as in the original.

    Raises ForegroundError where nothing, or nothing wider than a pixel, is opaque.
    """
    rows, columns = np.nonzero(image[..., 3])
    if not len(rows):
        raise ForegroundError(
            "the picture holds no subject: every pixel is transparent; give a picture whose subject"
            " stands out from its background"
        )
    subject = image[rows.min() : rows.max(), columns.min() : columns.max()]
    if not subject.size:
        raise ForegroundError("the picture's subject is one pixel wide; give a larger picture")
    side = max(subject.shape[:2])
    return _pad(_pad(subject, side), int(side / ratio))


def _pad(image: Array, side: int) -> Array:
    """In the middle of a transparent square; what cannot be halved goes below and to the right."""
    height, width = image.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 4), np.uint8)
    square[top : top + height, left : left + width] = image
    return square
