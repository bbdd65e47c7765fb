"""Pictures drawn for tests, and the plainest raster that can judge a mesh's outline.

S picture side in pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from onelook.foreground.foreground import Foreground


def pixel_centers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the pixel centres, (S, S) each."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    return columns, rows


def disc(size: int = 512, radius: float = 0.4, center: tuple[float, float] = (0.5, 0.5)):
    """Antialiased alpha (S, S) of a disc; lengths are shares of the side."""
    columns, rows = pixel_centers(size)
    distance = np.hypot(columns - center[0] * size, rows - center[1] * size)
    return np.clip(radius * size - distance + 0.5, 0, 1)


def ring(size: int = 512) -> np.ndarray:
    return disc(size) * (1 - disc(size, 0.22))


def words(size: int = 512) -> np.ndarray:
    """Thin strokes: four letters joined by hand."""
    alpha = np.zeros((size, size), np.uint8)
    scale = size / 512
    cv2.putText(
        alpha,
        "relief",
        (int(20 * scale), int(300 * scale)),
        cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
        4.6 * scale,
        255,
        max(1, round(3 * scale)),
        cv2.LINE_AA,
    )
    return alpha / 255.0


def wheel(size: int = 512) -> np.ndarray:
    """A rim and sixteen spokes that end in points."""
    columns, rows = pixel_centers(size)
    x, y = columns / size - 0.5, rows / size - 0.5
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    spokes = (np.abs(np.sin(8 * angle)) * radius < 0.024) & (radius < 0.44)
    return (((radius < 0.45) & (radius > 0.43)) | spokes).astype(float)


def cut_out(alpha: np.ndarray, colors: np.ndarray | None = None) -> Foreground:
    """alpha (S, S) 0..1 and colors (S, S, 3) 0..1 (default: mid grey) -> Foreground."""
    image = np.full((*alpha.shape, 4), 128, np.uint8)
    if colors is not None:
        image[..., :3] = np.round(np.clip(colors, 0, 1) * 255)
    image[..., 3] = np.round(np.clip(alpha, 0, 1) * 255)
    return Foreground(image, "alpha")


def covered(points: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
    """Which pixel centres lie in some triangle: points (N, 2) as (column, row) -> (S, S) bool.

    Candidates are all pixels of each triangle's bounding box, tested by three edge functions.
    """
    corners = points[faces].astype(np.float64)  # (M, 3, 2)
    first = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, size).astype(int)
    last = np.clip(np.floor(corners.max(axis=1) - 0.5), -1, size - 1).astype(int)
    extent = np.maximum(last - first + 1, 0)
    counts = extent.prod(axis=1)
    face = np.repeat(np.arange(len(faces)), counts)
    place = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    column = first[face, 0] + place % extent[face, 0]
    row = first[face, 1] + place // extent[face, 0]
    a, b, c = (corners[face, k] - np.stack([column + 0.5, row + 0.5], axis=1) for k in range(3))
    sides = np.stack([p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0] for p, q in ((a, b), (b, c), (c, a))])
    hit = (sides >= 0).all(axis=0) | (sides <= 0).all(axis=0)
    mask = np.zeros((size, size), bool)
    mask[row[hit], column[hit]] = True
    return mask
