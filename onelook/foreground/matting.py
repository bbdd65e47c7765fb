"""From a coarse mask to a soft alpha at full resolution.

Around the mask's outline lies a band of unknown pixels. Each is explained as a mix of a subject
colour and a background colour found nearby; the mixes are then made to agree with each other along
the picture's own edges by a guided filter.

H rows, W columns; N unknown pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray

BAND = 2.0  # least half width of the unknown band, in pixels of the coarse mask
_EXPLAINED = 12.0  # a colour distance (0..255) that a mix may leave unexplained
_APART = 24.0  # subject and background colours nearer than this say little about alpha
_WHOLE = 700_000  # pixels; larger windows are filtered at half the resolution
_FILTER_EPSILON = (4.0 / 255) ** 2  # variance below which the guided filter just averages


def soft_alpha(rgb: Array, mask: Array, reach: float) -> Array:
    """rgb (H, W, 3) uint8, mask (h, w) float32 0..1, coarser or equal -> alpha (H, W) float32.

    reach: how far from the mask's outline soft parts (hair, blur) may lie, on both sides, as a
    fraction of the longer side.
    """
    height, width = rgb.shape[:2]
    scale = max(1.0, max(height, width) / max(mask.shape))
    prior = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    prior = cv2.GaussianBlur(prior, (0, 0), max(0.7, 0.5 * scale))
    inside = prior > 0.5
    if inside.all() or not inside.any():
        return inside.astype(np.float32)
    band = max(BAND * scale + 1, reach * max(height, width))
    front, back = _sure(inside, band)
    front, back = front & (prior > 0.95), back & (prior < 0.05)
    unknown = ~(front | back)
    alpha, confidence = front.astype(np.float32), np.ones((height, width), np.float32)
    mixed, trust = _explain(rgb, front, back, unknown)
    alpha[unknown] = trust * mixed + (1 - trust) * prior[unknown]
    confidence[unknown] = np.maximum(trust, 0.05)
    radius = max(2, round(1.5 * scale))
    alpha[unknown] = _guided(rgb, alpha, confidence, radius)[unknown]
    return np.clip((alpha - 0.06) / 0.88, 0, 1)


def _sure(inside: Array, band: float) -> tuple[Array, Array]:
    """Pixels that are surely subject, surely background; thin parts keep their middle line."""
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
    around = np.ones((2 * int(band) + 1, 2 * int(band) + 1), np.uint8)
    middle = np.maximum(0.6 * cv2.dilate(depth, around), 0.9)
    beyond = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5)
    return depth > np.minimum(band, middle), beyond > band


def _nearest(known: Array) -> Array:
    """known (H, W) bool -> (H, W) flat index of the nearest known pixel."""
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros(labels.max() + 1, np.int64)
    table[labels[known]] = np.flatnonzero(known)
    return table[labels]


def _explain(rgb: Array, front: Array, back: Array, unknown: Array) -> tuple[Array, Array]:
    """Best mix for each unknown pixel -> alpha (N,), and how far to trust it (N,), both 0..1."""
    rows, columns = np.nonzero(unknown)
    colour = rgb[unknown].astype(np.float32)
    if not front.any() or not back.any():
        return np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32)
    step = max(3, round(0.01 * max(rgb.shape)))
    fronts = _candidates(rgb, front, rows, columns, step)
    backs = _candidates(rgb, back, rows, columns, 2 * step)
    best = np.full(len(rows), np.inf, np.float32)
    alpha, missed, length = np.zeros_like(best), np.zeros_like(best), np.zeros_like(best)
    for b in backs:
        offset = colour - b
        distance = _dot(offset, offset)
        for f in fronts:
            across = f - b
            apart, along = _dot(across, across), _dot(offset, across)
            a = np.clip(along / np.maximum(apart, 1.0), 0, 1)
            rest = np.maximum(distance + a * (a * apart - 2 * along), 0)
            cost = (rest + 20.0) / (apart + 400.0)  # a pair far apart may miss by more
            better = cost < best
            for kept, new in ((best, cost), (alpha, a), (missed, rest), (length, apart)):
                np.copyto(kept, new, where=better)
    trust = np.exp(-missed / (2 * _EXPLAINED**2)) * length / (length + _APART**2)
    return alpha, trust


def _dot(one: Array, other: Array) -> Array:
    return np.einsum("nc,nc->n", one, other)


def _candidates(rgb: Array, known: Array, rows: Array, columns: Array, step: int) -> list[Array]:
    """Five known colours near each pixel: those nearest to it and to four points around it."""
    weight = cv2.blur(known.astype(np.float32), (5, 5))
    smooth = cv2.blur(np.where(known[..., None], rgb, 0).astype(np.float32), (5, 5))
    smooth /= np.maximum(weight, 1e-3)[..., None]
    nearest = _nearest(known)
    height, width = known.shape
    found = []
    for down, right in ((0, 0), (step, 0), (-step, 0), (0, step), (0, -step)):
        r = np.clip(rows + down, 0, height - 1)
        c = np.clip(columns + right, 0, width - 1)
        found.append(smooth.reshape(-1, 3)[nearest[r, c]])
    return found


def _guided(rgb: Array, target: Array, weight: Array, radius: int) -> Array:
    """The target made linear in the picture's colour, window by window, by weighted least squares.

    rgb (H, W, 3) uint8, target and weight (H, W) float32 -> (H, W) float32. Source: He, Sun, Tang,
    Guided Image Filtering, 2010, section 3.4, with a weight for each pixel; large pictures take
    the coefficients from half the resolution, as in He and Sun, Fast Guided Filter, 2015.
    """
    guide = rgb.astype(np.float32) / 255
    height, width = target.shape
    if height * width <= _WHOLE:
        slope, offset = _guided_coefficients(guide, target, weight, radius)
    else:
        size = ((width + 1) // 2, (height + 1) // 2)
        small = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (guide, target, weight)]
        found = _guided_coefficients(*small, max(1, radius // 2))
        slope, offset = (
            cv2.resize(x, (width, height), interpolation=cv2.INTER_LINEAR) for x in found
        )
    return (slope * guide).sum(axis=2) + offset


def _guided_coefficients(
    guide: Array, target: Array, weight: Array, radius: int
) -> tuple[Array, Array]:
    """guide (H, W, 3) -> slope (H, W, 3) and offset (H, W), averaged over windows."""
    size = (2 * radius + 1, 2 * radius + 1)

    def mean(values: Array) -> Array:
        return cv2.blur(values, size)

    total = mean(weight)
    g = mean(guide * weight[..., None]) / total[..., None]
    t = mean(target * weight) / total
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    xx, xy, xz, yy, yz, zz = (
        mean(guide[..., i] * guide[..., j] * weight) / total - g[..., i] * g[..., j]
        for i, j in pairs
    )
    xx, yy, zz = xx + _FILTER_EPSILON, yy + _FILTER_EPSILON, zz + _FILTER_EPSILON
    x, y, z = (mean(guide[..., i] * target * weight) / total - g[..., i] * t for i in range(3))
    # Cramer's rule for the symmetric 3 x 3 system
    m0, m1, m2 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    m3, m4, m5 = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    inverse = 1.0 / (xx * m0 + xy * m1 + xz * m2)
    slope = np.dstack(
        [
            (m0 * x + m1 * y + m2 * z) * inverse,
            (m1 * x + m3 * y + m4 * z) * inverse,
            (m2 * x + m4 * y + m5 * z) * inverse,
        ]
    )
    offset = t - (slope * g).sum(axis=2)
    slope = mean(slope * weight[..., None]) / total[..., None]
    return slope, mean(offset * weight) / total
