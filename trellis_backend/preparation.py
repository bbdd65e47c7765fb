"""Prepare a picture exactly as the original does: its networks know nothing else.

Pillow's own resampling is part of the definition. W columns, H rows.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from onelook.errors import ForegroundError

SIDE = 518  # pixels of the encoder's picture: 37 patches of 14
LONGEST = 1024  # pixels that a background remover gets to see
OPAQUE_ABOVE = 204  # 0.8 * 255
MARGIN = 1.2  # side of the crop over the longest side of the subject


def has_cutout(picture: Image.Image) -> bool:
    """Whether the picture brings its own alpha: RGBA, and not opaque everywhere."""
    return picture.mode == "RGBA" and picture.getextrema()[3][0] < 255


def shrink(picture: Image.Image) -> Image.Image:
    """The picture in RGB, at most LONGEST pixels wide and high: what a background remover gets."""
    picture = picture.convert("RGB")
    scale = LONGEST / max(picture.size)
    if scale >= 1:
        return picture
    size = tuple(int(side * scale) for side in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS)


def frame_subject(cutout: Image.Image) -> Image.Image:
    """An RGBA cut-out of any size -> RGB (SIDE, SIDE): the subject centred on black.

    Raises ForegroundError when no pixel of the picture is opaque enough.
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
    half = int(max(right - left, bottom - top) * MARGIN) // 2
    if not half:
        raise ForegroundError("the picture's subject is a single pixel; give a larger picture")
    x, y = (left + right) / 2, (top + bottom) / 2
    crop = cutout.crop((x - half, y - half, x + half, y + half))  # rounded half to even
    crop = crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(crop).astype(np.float32) / 255
    on_black = pixels[:, :, :3] * pixels[:, :, 3:]
    return Image.fromarray((on_black * 255).astype(np.uint8))  # cut off, not rounded


def encoder_pixels(pictures: list[Image.Image]) -> np.ndarray:
    """Pictures of any size -> (B, 3, SIDE, SIDE) float32 0..1; their aspect is not kept."""
    resized = [p.resize((SIDE, SIDE), Image.Resampling.LANCZOS).convert("RGB") for p in pictures]
    stacked = np.stack([np.asarray(picture) for picture in resized])
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)).astype(np.float32) / 255
