"""The room's one door: a picture file becomes a Foreground."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onelook.foreground.centre import centre, extend_colours, pad_to_square
from onelook.foreground.cutout import cut_out, refuse_empty, resize_rgba
from onelook.foreground.decode import decode_picture
from onelook.foreground.foreground import Foreground

Array = np.ndarray

MAX_SIDE = 2048  # pixels of the square; larger pictures are scaled down


def extract_foreground(
    source: Path | bytes, remove_background: bool = True, rembg_model: str | None = None
) -> Foreground:
    """A picture file, or its bytes -> its subject on a transparent square of at most `MAX_SIDE`.

    remove_background: cut the subject out and centre it. False takes the picture as it is, with
    its own alpha if it has one, padded to a square with transparent pixels.
    rembg_model: name of a local rembg session, or "none"; see `rembg_session.network_mask`.
    Raises PictureError when the picture cannot be used, ForegroundError when it shows no subject,
    OptionError when `rembg_model` is unknown.
    """
    pixels = decode_picture(source)
    if remove_background:
        found = cut_out(pixels, rembg_model)
        image = extend_colours(centre(found.image))
        return Foreground(_capped(image), found.method, found.notes)
    refuse_empty(pixels[..., 3])
    method = "none" if pixels[..., 3].min() == 255 else "alpha"
    image = extend_colours(pad_to_square(_capped(pixels)))
    return Foreground(image, method)


def _capped(image: Array) -> Array:
    factor = MAX_SIDE / max(image.shape[:2])
    return extend_colours(resize_rgba(image, factor)) if factor < 1 else image
