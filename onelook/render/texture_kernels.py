"""Warp kernels and functions for mip-mapped textures.

A texture is a full-size level, used as it came, and the smaller levels one after the other in one
array. A texel is one number: four bytes (red lowest) or two. Colours are stored sRGB-encoded and
filtered in linear light.
"""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.struct
class Texture:
    """Square levels: level 0 of `size` pixels in `top`, level k >= 1 in `rest` at offsets[k]."""

    top: wp.array(dtype=wp.uint32)
    rest: wp.array(dtype=wp.uint32)
    offsets: wp.array(dtype=wp.int32)
    decode: wp.array(dtype=wp.float32)  # 256 values: byte -> linear
    size: wp.int32
    levels: wp.int32


@wp.func
def byte_of(texel: wp.uint32, channel: int) -> int:
    return int((texel >> wp.uint32(8 * channel)) & wp.uint32(255))


@wp.func
def texel_at(texture: Texture, level: int, index: int) -> wp.uint32:
    if level == 0:
        return texture.top[index]
    return texture.rest[texture.offsets[level] + index]


@wp.func
def decode_texel(texture: Texture, texel: wp.uint32) -> wp.vec4:
    """Colour to linear light, alpha (the highest byte) as it is."""
    return wp.vec4(
        texture.decode[byte_of(texel, 0)],
        texture.decode[byte_of(texel, 1)],
        texture.decode[byte_of(texel, 2)],
        float(byte_of(texel, 3)) * (1.0 / 255.0),
    )


@wp.func
def sample_level(texture: Texture, uv: wp.vec2, level: int) -> wp.vec4:
    """Bilinear, clamped at the border; uv has its origin at the top left corner."""
    size = texture.size >> level
    last = float(size - 1)
    x = wp.clamp(uv[0] * float(size) - 0.5, 0.0, last)
    y = wp.clamp(uv[1] * float(size) - 0.5, 0.0, last)
    column, row = int(x), int(y)
    fx, fy = x - float(column), y - float(row)
    right = wp.min(column + 1, size - 1)
    upper, lower = row * size, wp.min(row + 1, size - 1) * size
    a = decode_texel(texture, texel_at(texture, level, upper + column))
    b = decode_texel(texture, texel_at(texture, level, upper + right))
    c = decode_texel(texture, texel_at(texture, level, lower + column))
    d = decode_texel(texture, texel_at(texture, level, lower + right))
    top = a + (b - a) * fx
    bottom = c + (d - c) * fx
    return top + (bottom - top) * fy


@wp.func
def sample(texture: Texture, uv: wp.vec2, level: float) -> wp.vec4:
    """Trilinear; level 0 is full size and may be fractional."""
    level = wp.clamp(level, 0.0, float(texture.levels - 1))
    lower = int(level)
    part = level - float(lower)
    color = sample_level(texture, uv, lower)
    if part > 0.0:
        color = color + (sample_level(texture, uv, lower + 1) - color) * part
    return color


@wp.kernel
def halve(
    first: int,
    texture: Texture,
    level: int,
    encode: wp.array(dtype=wp.uint8),
):
    """One item: a row of `level`, each texel the mean of four of the level above."""
    row = first + wp.tid()
    size = texture.size >> level
    above = texture.size >> (level - 1)
    steps = float(encode.shape[0] - 1)
    for column in range(size):
        corner = 2 * row * above + 2 * column
        mean = decode_texel(texture, texel_at(texture, level - 1, corner))
        mean += decode_texel(texture, texel_at(texture, level - 1, corner + 1))
        mean += decode_texel(texture, texel_at(texture, level - 1, corner + above))
        mean += decode_texel(texture, texel_at(texture, level - 1, corner + above + 1))
        mean *= 0.25
        texel = wp.uint32(wp.rint(mean[3] * 255.0)) << wp.uint32(24)
        for channel in range(3):
            code = wp.uint32(encode[int(mean[channel] * steps + 0.5)])
            texel = texel | (code << wp.uint32(8 * channel))
        texture.rest[texture.offsets[level] + row * size + column] = texel
