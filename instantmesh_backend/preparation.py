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


def _numbers(value: float | list[float]) -> float | tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list) else float(value)
