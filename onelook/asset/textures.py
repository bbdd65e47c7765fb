"""Encode the textures of an asset as image files in memory, side by side.

PNG is written at the fastest level that still shrinks flat areas (runs; every row predicted by
Paeth's rule): of a photograph-like 4096 x 4096 texture it takes a third of a second, and no level
makes it much smaller. T texture size in pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from onelook.asset.asset import Asset
from onelook.errors import OptionError

Array = np.ndarray

TEXTURE_FORMATS = ("png", "jpeg", "webp")
JPEG_QUALITY = 92
WEBP_QUALITY = 90


@dataclass(frozen=True)
class EncodedImage:
    """An image file in memory."""

    mime_type: str
    content: bytes


def encode_textures(asset: Asset, texture_format: str) -> dict[str, EncodedImage]:
    """The asset's textures by role: "base_color", "metallic_roughness", "normal".

    texture_format: "png", "jpeg" or "webp". base_color has its alpha only where the asset is not
    opaque, and is then a PNG where JPEG was asked for; metallic_roughness is packed as glTF wants
    it (green roughness, blue metallic). Raises OptionError for another format.
    """
    if texture_format not in TEXTURE_FORMATS:
        known = ", ".join(TEXTURE_FORMATS)
        raise OptionError(f"texture_format must be one of {known}, got {texture_format!r}")
    pixels = texture_pixels(asset)
    with ThreadPoolExecutor(len(pixels)) as pool:  # the encoders release Python's lock
        jobs = {role: pool.submit(_encode, image, texture_format) for role, image in pixels.items()}
        return {role: job.result() for role, job in jobs.items()}


def texture_pixels(asset: Asset) -> dict[str, Array]:
    """The textures by role as images (T, T, 3 or 4) uint8, RGB order, row 0 at the top."""
    textures = asset.textures
    channels = 3 if asset.alpha_mode == "OPAQUE" else 4
    pixels = {"base_color": np.ascontiguousarray(textures.base_color[..., :channels])}
    if textures.metallic_roughness is not None:
        metallic, roughness = (
            textures.metallic_roughness[..., 0],
            textures.metallic_roughness[..., 1],
        )
        pixels["metallic_roughness"] = cv2.merge([np.zeros_like(metallic), roughness, metallic])
    if textures.normal is not None:
        pixels["normal"] = np.ascontiguousarray(textures.normal)
    return pixels


def encode_png(image: Array) -> bytes:
    """An image (T, T), (T, T, 3) or (T, T, 4) uint8, RGB order, as PNG."""
    return _encode(image, "png").content


def _encode(image: Array, texture_format: str) -> EncodedImage:
    channels = 1 if image.ndim == 2 else image.shape[2]
    if texture_format == "jpeg" and channels == 4:
        texture_format = "png"  # JPEG has no alpha
    if channels > 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if channels == 4 else cv2.COLOR_RGB2BGR)
    settings = {"png": _png_settings(), "jpeg": _JPEG_SETTINGS, "webp": _WEBP_SETTINGS}
    _, content = cv2.imencode(f".{texture_format}", image, settings[texture_format])
    return EncodedImage(f"image/{texture_format}", content.tobytes())


_JPEG_SETTINGS = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
_WEBP_SETTINGS = [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY]


def _png_settings() -> list[int]:
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    settings += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # OpenCV 4.12 and later
        settings += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH]
    return settings
