"""Textures on a device, with their mip levels."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray
ENCODE_STEPS = 16384  # table entries: codes come out within 0.1 of the exact value before rounding
SMALLEST_LEVEL = 4  # pixels; smaller levels would mix unrelated parts of an atlas


@cache
def srgb_decode() -> Array:
    """(256,) float32: sRGB byte -> linear light (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)


@cache
def srgb_encode() -> Array:
    """(ENCODE_STEPS,) uint8: linear light 0..1 in even steps -> sRGB byte."""
    linear = np.arange(ENCODE_STEPS) / (ENCODE_STEPS - 1)
    value = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(value * 255).astype(np.uint8)


def upload_texture(image: Array, is_color: bool, device: str) -> Any:
    """image (T, T, 4) uint8 -> a `texture_kernels.Texture` with all its mip levels.

    is_color: the first three channels are sRGB-encoded, else linear. On the CPU level 0 is the
    image's own memory.
    """
    import warp as wp

    from onelook.kernels import launch
    from onelook.render import texture_kernels as kernels

    size = image.shape[0]
    sizes = [size]
    while sizes[-1] // 2 >= SMALLEST_LEVEL:
        sizes.append(sizes[-1] // 2)
    offsets = np.concatenate([[0, 0], np.cumsum(np.square(sizes[1:]))]).astype(np.int32)
    table = srgb_decode() if is_color else (np.arange(256) / 255).astype(np.float32)
    texels = np.ascontiguousarray(image).reshape(-1, 4).view(np.uint32).reshape(-1)
    texture = kernels.Texture()
    texture.top = wp.array(texels, dtype=wp.uint32, device=device, copy=False)
    texture.rest = wp.empty(max(int(offsets[-1]), 1), dtype=wp.uint32, device=device)
    texture.offsets = wp.array(offsets, dtype=wp.int32, device=device)
    texture.decode = wp.array(table, dtype=wp.float32, device=device)
    texture.size, texture.levels = size, len(sizes)
    encode = encode_table(device) if is_color else _linear_encode(device)
    for level in range(1, len(sizes)):
        launch(kernels.halve, sizes[level], [texture, level, encode], device)
    return texture


@cache
def encode_table(device: str) -> Any:
    """`srgb_encode` on a device."""
    import warp as wp

    return wp.array(srgb_encode(), dtype=wp.uint8, device=device)


@cache
def _linear_encode(device: str) -> Any:
    import warp as wp

    codes = np.rint(np.arange(ENCODE_STEPS) / (ENCODE_STEPS - 1) * 255).astype(np.uint8)
    return wp.array(codes, dtype=wp.uint8, device=device)
