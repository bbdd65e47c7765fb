"""Frame a picture as the two TRELLIS were taught: the subject in a square, on black.

Pillow's own resampling and rounding are part of the definition. W columns, H rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from onelook.errors import ForegroundError

LONGEST = 1024  # pixels that a background remover gets to see
OPAQUE_ABOVE = 204  # 0.8 * 255


def has_cutout(picture: Image.Image) -> bool:
    """Whether the picture brings its own alpha: RGBA, and not opaque everywhere."""
    return picture.mode == "RGBA" and picture.getextrema()[3][0] < 255


def shrink(picture: Image.Image) -> Image.Image:
    """The picture at most LONGEST pixels wide and high."""
    scale = LONGEST / max(picture.size)
    if scale >= 1:
        return picture
    size = tuple(int(side * scale) for side in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS)


def crop_subject(cutout: Image.Image, margin: float = 1.0) -> Image.Image:
    """An RGBA cut-out -> the square around what is opaque in it, `margin` times as large.

    Raises ForegroundError when no pixel of the picture is opaque enough, or only one.
    """
    alpha = np.asarray(cutout)[:, :, 3]
    rows, columns = np.nonzero(alpha > OPAQUE_ABOVE)
    if not len(rows):
        raise ForegroundError(
            "the picture holds no subject: no pixel is at least 80 % opaque; give a picture whose"
            " subject stands out from its background"
        )
    left, top, right, bottom = (
        int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max())
    )
    half = int(max(right - left, bottom - top) * margin) // 2
    if not half:
        raise ForegroundError("the picture's subject is a single pixel; give a larger picture")
    x, y = (left + right) / 2, (top + bottom) / 2
    return cutout.crop((x - half, y - half, x + half, y + half))  # rounded half to even


def on_black(cutout: Image.Image) -> Image.Image:
    """RGBA -> RGB on a black background; cut off to whole numbers, not rounded."""
    pixels = np.asarray(cutout).astype(np.float32) / 255
    return Image.fromarray((pixels[:, :, :3] * pixels[:, :, 3:] * 255).astype(np.uint8))


def square_pixels(pictures: Sequence[Image.Image], side: int) -> np.ndarray:
    """Pictures of any size -> (B, 3, side, side) float32 0..1; their aspect is not kept."""
    resized = [p.resize((side, side), Image.Resampling.LANCZOS).convert("RGB") for p in pictures]
    stacked = np.stack([np.asarray(picture) for picture in resized])
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)).astype(np.float32) / 255
