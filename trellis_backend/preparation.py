"""Prepare a picture exactly as the original does: its networks know nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from onelook.foreground.square import crop_subject, on_black, square_pixels

SIDE = 518  # pixels of the encoder's picture: 37 patches of 14
MARGIN = 1.2  # side of the crop over the longest side of the subject


def frame_subject(cutout: Image.Image) -> Image.Image:
    """An RGBA cut-out of any size -> RGB (SIDE, SIDE): the subject centred on black.

    Raises ForegroundError when no pixel of the picture is opaque enough.
    """
    crop = crop_subject(cutout, MARGIN)
    return on_black(crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def encoder_pixels(pictures: Sequence[Image.Image]) -> np.ndarray:
    """Pictures of any size -> (B, 3, SIDE, SIDE) float32 0..1."""
    return square_pixels(pictures, SIDE)
