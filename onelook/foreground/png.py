"""The cut-out as a file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from onelook.files import write_whole

Array = np.ndarray


def encode_png(image: Array) -> bytes:
    """image (H, W, 4) uint8, sRGB with straight alpha -> a PNG file's bytes."""
    bgra = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA)
    written, encoded = cv2.imencode(".png", bgra, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert written
    return encoded.tobytes()


def write_png(image: Array, path: Path) -> None:
    """image (H, W, 4) uint8, sRGB with straight alpha -> a PNG file, whole or not at all.

    Raises OutputError when the file cannot be written.
    """
    write_whole(path, encode_png(image))
