"""Prepare a picture exactly as the original does: its networks know nothing else."""

from __future__ import annotations

from PIL import Image

from onelook.foreground.square import crop_subject, on_black, shrink


def frame_subject(cutout: Image.Image) -> Image.Image:
    """An RGBA cut-out of any size -> RGB, square: the subject on black, from side to side.

    Raises ForegroundError when no pixel of the picture is opaque enough.
    """
    return on_black(crop_subject(shrink(cutout)))
