"""Prepare pictures exactly as the original does, and take its picture of six views apart.

Pillow's own resampling is part of the definition. W columns, H rows, S side of a square.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onelook.errors import ForegroundError, PictureError

Array = np.ndarray

RATIO = 0.85  # of the subject's longer side to the picture's
MIN_SIDE = 32  # pixels; less shows nothing to go by
VIEW_ROWS, VIEW_COLUMNS = 3, 2


@dataclass(frozen=True)
class PixelSettings:
    """A preprocessor_config.json: the picture's shorter side becomes `size` pixels, of which the
    middle `crop` x `crop` are kept; resample: Pillow's number; mean, std: of channels in 0..1."""

    size: int
    crop: int
    resample: int
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    @staticmethod
    def of_json(content: dict[str, Any]) -> PixelSettings:
        """Sizes may be numbers or `{"shortest_edge": n}`, `{"height": n, "width": n}`.

        Raises KeyError, TypeError or ValueError where something is missing or of another kind.
        """
        size, crop = content["size"], content["crop_size"]
        if isinstance(crop, dict):
            if crop["height"] != crop["width"]:
                raise ValueError(f"crop_size must be a square, got {crop}")
            crop = crop["height"]
        return PixelSettings(
            int(size["shortest_edge"] if isinstance(size, dict) else size),
            int(crop),
            int(content["resample"]),
            _numbers(content["image_mean"]),
            _numbers(content["image_std"]),
        )


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


def on_white(picture: Image.Image) -> Image.Image:
    """RGB as it is, RGBA over white -> RGB. Raises PictureError for another mode."""
    if picture.mode == "RGB":
        return picture
    if picture.mode != "RGBA":
        raise PictureError(f"the picture must be RGB or RGBA, got mode {picture.mode}")
    canvas = Image.new("RGB", picture.size, (255, 255, 255))
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas


def require_subject(picture: Image.Image) -> None:
    """Raise PictureError for a picture that is too small, ForegroundError for an empty one."""
    if min(picture.size) < MIN_SIDE:
        raise PictureError(
            f"the picture is {picture.width} x {picture.height} pixels; its shorter side must have"
            f" at least {MIN_SIDE}"
        )
    if picture.mode == "RGBA" and not picture.getextrema()[3][1]:
        raise ForegroundError(
            "the picture holds no subject: every pixel is transparent; give a cut-out whose subject"
            " is opaque"
        )


def encoder_pixels(picture: Image.Image, settings: PixelSettings) -> Array:
    """RGB of any size -> (1, 3, S, S) float32, resized, cropped and normalised."""
    short = min(picture.size)
    size = tuple(
        settings.size if side == short else int(settings.size * side / short)
        for side in picture.size
    )
    resized = picture.resize(size, Image.Resampling(settings.resample))
    left, top = ((side - settings.crop) // 2 for side in resized.size)
    cropped = resized.crop((left, top, left + settings.crop, top + settings.crop))
    pixels = np.asarray(cropped, np.float32) / 255
    mean, std = np.float32(settings.mean), np.float32(settings.std)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])


def split_views(grid: Array) -> Array:
    """(3 S, 2 S, 3) uint8 -> (6, 3, S, S) float32 0..1: row by row, from the top left."""
    side = grid.shape[0] // VIEW_ROWS
    tiles = grid.reshape(VIEW_ROWS, side, VIEW_COLUMNS, side, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, 3, side, side)).astype(np.float32) / 255


def write_views(views: Array, path: Path) -> None:
    """views (H, W, 3) uint8 -> an RGB PNG. Raises OSError when it cannot be written."""
    Image.fromarray(views).save(path, "PNG")


def _pad(image: Array, side: int) -> Array:
    """In the middle of a transparent square; what cannot be halved goes below and to the right."""
    height, width = image.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 4), np.uint8)
    square[top : top + height, left : left + width] = image
    return square


def _numbers(value: float | list[float]) -> float | tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list) else float(value)
