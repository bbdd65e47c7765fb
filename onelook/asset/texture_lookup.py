"""Read an image at UVs, between its texels.

N points, H rows, W columns, C channels.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
_AT_ONCE = 1 << 20  # points: bounds the memory of the four neighbours


def look_up(image: Array, uvs: Array, *, repeat: bool = True) -> Array:
    """The image (H, W, C) uint8 at uvs (N, 2), origin at the top left: -> (N, C) float32 0..1.

    Bilinear between the centres of texels, as graphics cards filter, on the values as stored.
    repeat: the image continues beyond 0..1 (glTF's default); else its border does.
    """
    result = np.empty((len(uvs), image.shape[2]), np.float32)
    size = np.array([image.shape[1], image.shape[0]])
    for first in range(0, len(uvs), _AT_ONCE):
        part = uvs[first : first + _AT_ONCE].astype(np.float64)
        part = part - np.floor(part) if repeat else np.clip(part, 0.0, 1.0)
        place = part * size - 0.5  # (n, 2) in texels
        low = np.floor(place).astype(np.int64)
        share = (place - low).astype(np.float32)
        mixed = np.zeros((len(part), image.shape[2]), np.float32)
        for right in (0, 1):
            for down in (0, 1):
                column, row = low[:, 0] + right, low[:, 1] + down
                column = column % size[0] if repeat else np.clip(column, 0, size[0] - 1)
                row = row % size[1] if repeat else np.clip(row, 0, size[1] - 1)
                across = share[:, 0] if right else 1 - share[:, 0]
                along = share[:, 1] if down else 1 - share[:, 1]
                mixed += image[row, column] * (across * along)[:, None]
        result[first : first + _AT_ONCE] = mixed / 255
    return result
