"""Small pictures that the tests of the doors send in."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def mushroom_png(size: int = 96, transparent: bool = True) -> bytes:
    """A red cap on a white stem, `size` pixels square, as PNG; on light grey if not transparent.

    Left and right differ (a blue spot), so that a mirrored asset shows.
    """
    unit = size / 96
    background = (0, 0, 0, 0) if transparent else (215, 215, 215, 255)
    image = Image.new("RGBA", (size, size), background)
    draw = ImageDraw.Draw(image)
    draw.rectangle([38 * unit, 44 * unit, 58 * unit, 84 * unit], fill=(240, 235, 225, 255))
    draw.pieslice([12 * unit, 12 * unit, 84 * unit, 84 * unit], 180, 360, fill=(190, 45, 35, 255))
    draw.ellipse([24 * unit, 26 * unit, 36 * unit, 38 * unit], fill=(40, 70, 180, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
