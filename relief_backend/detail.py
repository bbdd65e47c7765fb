"""Fine relief for the front: what shading and drawing suggest, a very little of it.

J, I grid rows (upward) and columns, N vertices.
"""

from __future__ import annotations

import cv2
import numpy as np

from relief_backend.body import cubic
from relief_backend.config import ReliefConfig
from relief_backend.silhouette import Silhouette, bilinear_grid

Array = np.ndarray

_LUMINANCE = np.array(
    [0.2126, 0.7152, 0.0722], np.float32
)  # Rec. 709, on encoded values: no optics
_FAINT = 0.04  # contrast (standard deviation of the band) below which the relief fades out
_RIM = 0.03  # the relief is two thirds of its full height at this half-thickness


def raise_detail(
    front: Array, colors: Array, silhouette: Silhouette, config: ReliefConfig
) -> Array:
    """Move the front's vertices along z by the picture's band-passed luminance.

    front (N, 3) in cells; colors (S, S, 3) float32 0..1, extended beyond the subject. The
    displacement is at most config.detail_height and fades to zero where z does, at the rim.
    """
    band = _band(colors @ _LUMINANCE, silhouette, config)
    x, y, z = front.T
    height = cubic(band, x, y)[0] * (config.detail_height * silhouette.side)
    fade = 1 - np.exp(-z / (_RIM * silhouette.side))
    moved = front.copy()
    moved[:, 2] += np.clip(height * fade, -0.5 * z, 0.5 * z)
    return moved


def _band(luminance: Array, silhouette: Silhouette, config: ReliefConfig) -> Array:
    """Difference of two blurs inside the outline, as (J, I) float32 in -1..1."""
    cell, shape = silhouette.cell, silhouette.level.shape
    sigma = 0.5 * cell
    if sigma > 0.5:
        luminance = cv2.GaussianBlur(luminance, (0, 0), sigma)
    rows = silhouette.bottom - np.arange(shape[0]) * cell - 0.5
    columns = silhouette.left + np.arange(shape[1]) * cell - 0.5
    sampled = bilinear_grid(luminance, rows, columns)
    weight = (silhouette.level > 0).astype(np.float32)

    def blur(share: float) -> Array:
        sigma = share * silhouette.side
        total, parts = (
            cv2.GaussianBlur(field, (0, 0), sigma) for field in (weight, weight * sampled)
        )
        return parts / np.maximum(total, 1e-4)

    band = (blur(config.detail_fine) - blur(config.detail_coarse)) * weight
    contrast = np.sqrt((band**2).sum() / weight.sum())
    band = np.tanh(band / (2 * np.hypot(contrast, _FAINT)))
    return cv2.GaussianBlur(band.astype(np.float32), (0, 0), 1.0)
