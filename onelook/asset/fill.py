"""Give every texel outside the charts the value of the nearest texel inside one.

So filtering and mip-mapping find no foreign colour at a chart's border, and the image compresses
well. One index map serves every texture.

T texture size.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def nearest_texel(covered: Array) -> Array | None:
    """covered (T, T) bool -> flat index of the nearest covered texel (T, T) int32.

    A covered texel is its own nearest. None where no texel is covered. The distance is OpenCV's
    3 x 3 approximation of the Euclidean one, which a gutter does not tell apart.
    """
    import cv2

    sources = np.flatnonzero(covered).astype(np.int32)
    if not len(sources):
        return None
    _, labels = cv2.distanceTransformWithLabels(
        (~covered).view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    return sources[labels - 1]  # labels number the covered texels, row by row, from 1


def fill_from(values: Array, nearest: Array, rows_at_once: int = 512) -> None:
    """Copy values (T, T, ...) from the nearest covered texel to every other, in place."""
    size = values.shape[0]
    flat = values.reshape(size * size, *values.shape[2:])
    for first in range(0, size, rows_at_once):
        values[first : first + rows_at_once] = flat[nearest[first : first + rows_at_once]]
