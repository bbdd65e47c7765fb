"""Colours at soft edges: take the old background out, and let the subject's own go on beyond it.

A pixel at an edge shows I = a F + (1 - a) B: part subject F, part background B. Keeping I with
transparency a brings a halo of the old background; here F is estimated and kept instead.

H rows, W columns, C channels.
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray

SURE = 0.98  # an alpha from which on a pixel counts as pure subject (and 1 - SURE as background)


def pull_push(colours: Array, weights: Array) -> Array:
    """colours (H, W, C) float32, weights (H, W) float32 0..1 -> (H, W, C) float32 without gaps.

    Where the weight is 1 the colours stay; where it is 0 they are filled smoothly from around. A
    pyramid of weighted means is built (pull) and gaps are filled from coarse to fine (push).
    All-zero weights give zeros. Source: Gortler et al., The Lumigraph, 1996, section 3.4.
    """
    height, width = weights.shape
    if max(height, width) == 1:
        return colours * (weights > 0)[..., None]
    size = ((width + 1) // 2, (height + 1) // 2)
    coarse_weights = cv2.resize(weights, size, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(colours * weights[..., None], size, interpolation=cv2.INTER_AREA)
    coarse = coarse.reshape(*coarse_weights.shape, -1)
    coarse /= np.maximum(coarse_weights, 1e-12)[..., None]
    coarse = pull_push(coarse, np.minimum(4.0 * coarse_weights, 1.0))
    filled = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    filled = filled.reshape(height, width, -1)
    return filled + (colours - filled) * weights[..., None]


def spread_colours(colours: Array, weights: Array) -> Array:
    """`pull_push` at half the resolution: colours (H, W, C) of any type -> (H, W, C) float32.

    For fills that need not keep detail; four times as fast.
    """
    height, width = weights.shape
    size = ((width + 1) // 2, (height + 1) // 2)
    weights = weights.astype(np.float32)
    small_weights = cv2.resize(weights, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(colours * weights[..., None], size, interpolation=cv2.INTER_AREA)
    small /= np.maximum(small_weights, 1e-6)[..., None]
    filled = pull_push(small, np.minimum(4 * small_weights, 1))
    return cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)


def subject_colours(rgb: Array, alpha: Array) -> Array:
    """rgb (H, W, 3) uint8, alpha (H, W) float32 0..1 -> F (H, W, 3) uint8.

    At soft edges the background's share is taken out; where alpha is 0 or 1 nothing changes.

    First guesses of F and B come from the sure pixels around; what they leave unexplained of I is
    then shared out, twice, with a small blur between: the closed form of Forte, Approximate Fast
    Foreground Colour Estimation, 2021 (equation 4), which comes close to the multi-level solver
    of Germer et al., 2020, at a fraction of its time.
    """
    soft = (alpha > 0) & (alpha < 1)
    a, seen = alpha[soft][:, None], rgb[soft].astype(np.float32)
    sure = alpha >= SURE
    front = spread_colours(rgb, sure if sure.any() else alpha)[soft]
    back = spread_colours(rgb, alpha <= 1 - SURE)[soft]
    front, back = _explain(seen, a, front, back)
    front = _near_mean(rgb, soft, front, alpha)
    back = _near_mean(rgb, soft, back, 1 - alpha)
    front, _ = _explain(seen, a, front, back)
    result = rgb.copy()
    result[soft] = (front + 0.5).astype(np.uint8)
    return result


def _near_mean(rgb: Array, soft: Array, colours: Array, weights: Array) -> Array:
    """The picture with new colours (N, 3) at its soft pixels, blurred by weight -> (N, 3)."""
    picture = rgb.astype(np.float32)
    picture[soft] = colours
    total = cv2.blur(weights, (7, 7))[soft]
    picture *= weights[..., None]
    return cv2.blur(picture, (7, 7))[soft] / np.maximum(total, 1e-3)[:, None]


def _explain(seen: Array, a: Array, front: Array, back: Array) -> tuple[Array, Array]:
    """The smallest change of F and B, weighed alike, that makes a F + (1 - a) B what is seen."""
    missing = (seen - a * front - (1 - a) * back) / (a * a + (1 - a) * (1 - a))
    return np.clip(front + a * missing, 0, 255), np.clip(back + (1 - a) * missing, 0, 255)
