"""Find the subject without a network: what does not look like the picture's border.

Where the background is plain or softly shaded, what deviates from it is the subject. Where it is
too varied for that, everything off the picture's frame is offered to GrabCut, which separates what
the frame is made of from what it is not. Source: Rother, Kolmogorov, Blake, GrabCut, 2004.

H, W rows and columns of the work picture (longer side at most `WORK_SIZE`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from onelook.foreground.background import Background, describe_background, frame_of, to_lab

Array = np.ndarray

WORK_SIZE = 512
ROUGH_SIZE = 192  # the rectangle's first rounds: GrabCut's time grows faster than its pixels
MARGIN = 0.05  # frame outside the rectangle, fraction of each side
ROUNDS = 3
SEED = 0  # GrabCut's k-means draws from OpenCV's generator

MAX_BORDER_CONTACT = 0.5  # a mask over more of the frame than this is not a subject
MIN_AREA, MAX_AREA = 0.002, 0.97  # of the picture
MIN_STEP = 3.0  # CIE Lab; median step across the outline
MIN_PART = 0.05  # smaller parts, relative to the largest, are dropped


@dataclass(frozen=True)
class CoarseMask:
    """mask (H, W) bool; method "grabcut" or "rectangle"; is_plain: the background is smooth."""

    mask: Array
    method: str

    @property
    def is_plain(self) -> bool:
        return self.method == "grabcut"


def find_subject(rgb: Array) -> CoarseMask | None:
    """rgb (H', W', 3) uint8, any size -> the subject's mask at work size, or None."""
    small = _shrink(rgb, WORK_SIZE)
    background = describe_background(small)
    if background is not None:
        if background.calm.mean() > 1 - MIN_AREA:
            return None
        mask = _border_mask(small, background)
        if mask is not None:
            return CoarseMask(mask, "grabcut")
    mask = _rectangle_mask(small)
    return None if mask is None else CoarseMask(mask, "rectangle")


def _shrink(rgb: Array, size: int) -> Array:
    height, width = rgb.shape[:2]
    factor = min(1.0, size / max(height, width))
    wanted = (max(8, round(width * factor)), max(8, round(height * factor)))
    return cv2.resize(rgb, wanted, interpolation=cv2.INTER_AREA)


def _border_mask(small: Array, background: Background) -> Array | None:
    """The subject on a described background; None where nothing or nearly all differs from it."""
    calm, residual, sigma = background.calm, background.residual, background.sigma
    back = cv2.erode(calm.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    front = (~calm & (residual > 12 * sigma)).astype(np.uint8)
    front = cv2.morphologyEx(front, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    front = (cv2.erode(front, np.ones((7, 7), np.uint8)) > 0) & ~calm
    if not front.any() or not back.any():
        return None
    likely = ~calm & (residual > np.clip(10 * sigma, 6.0, 14.0))
    labels = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[back] = cv2.GC_BGD
    labels[front] = cv2.GC_FGD
    mask = _grabcut(small, labels, ROUNDS)
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    return _checked(_main_parts(mask), small)


def _rectangle_mask(small: Array) -> Array | None:
    """The subject against a varied background: what the picture's frame is not made of."""
    rough = _shrink(small, ROUGH_SIZE)
    frame = _margin(rough)
    back = frame & ~_central_colours(to_lab(rough, 1.0), frame)
    labels = np.where(back, cv2.GC_BGD, cv2.GC_PR_FGD).astype(np.uint8)
    if not back.any():
        return None
    mask = _main_parts(_grabcut(rough, labels, ROUNDS))
    if not mask.any() or mask.all():
        return None
    mask = _sharpen(small, mask)
    return _checked(_main_parts(mask), small)


def _margin(rgb: Array) -> Array:
    height, width = rgb.shape[:2]
    return frame_of(height, width, max(1, int(MARGIN * height)), max(1, int(MARGIN * width)))


def _central_colours(lab: Array, frame: Array, ratio: float = 3.0) -> Array:
    """Where the colour is `ratio` times as common around the middle as in the frame.

    Such a piece of the frame is probably a subject that touches it, not background.
    """
    height, width = frame.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    central = np.exp(-(x * x + y * y) / (2 * 0.4**2))
    bins = ((lab - (0, -80, -80)) / (8, 10, 10)).astype(int)
    bins = np.clip(bins, 0, (12, 15, 15))
    common = [_smooth_histogram(bins, weight) for weight in (central, frame.astype(float))]
    found = (common[0] > ratio * (common[1] + 1e-6))[tuple(np.moveaxis(bins, -1, 0))]
    return cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0


def _smooth_histogram(bins: Array, weight: Array) -> Array:
    """bins (H, W, 3) int, weight (H, W) -> (13, 16, 16) shares that sum to 1, slightly blurred."""
    counts = np.zeros((15, 18, 18))
    np.add.at(counts, tuple(np.moveaxis(bins + 1, -1, 0)), weight)
    for axis in range(3):
        before, after = np.roll(counts, 1, axis), np.roll(counts, -1, axis)
        counts = 0.25 * before + 0.5 * counts + 0.25 * after
    return counts[1:-1, 1:-1, 1:-1] / weight.sum()


def _sharpen(small: Array, rough_mask: Array, reach: int = 7) -> Array:
    """A rough mask decided again, at work size, along its outline only."""
    height, width = small.shape[:2]
    mask = cv2.resize(rough_mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    kernel = np.ones((reach, reach), np.uint8)
    labels = np.where(mask > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.dilate(mask, kernel) == 0] = cv2.GC_BGD
    labels[cv2.erode(mask, kernel) > 0] = cv2.GC_FGD
    return _grabcut(small, labels, 2)


def _grabcut(rgb: Array, labels: Array, rounds: int) -> Array:
    """labels (H, W) uint8 in OpenCV's GC_ codes -> (H, W) bool."""
    rows, columns = np.nonzero(labels != cv2.GC_BGD)
    if not len(rows):
        return np.zeros(labels.shape, bool)
    # far background tells nothing new and costs time
    around = 8 + max(labels.shape) // 16
    window = np.s_[
        max(0, rows.min() - around) : rows.max() + around + 1,
        max(0, columns.min() - around) : columns.max() + around + 1,
    ]
    part = labels[window].copy()
    cv2.setRNGSeed(SEED)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    smooth = cv2.bilateralFilter(rgb[window], 5, 20, 5)
    cv2.grabCut(smooth, part, None, *models, rounds, cv2.GC_INIT_WITH_MASK)
    mask = np.zeros(labels.shape, bool)
    mask[window] = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    return mask


def _main_parts(mask: Array) -> Array:
    """Drop specks, and scenery that the border cuts when the main part stands free of it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return mask
    area = stats[:, cv2.CC_STAT_AREA].astype(float)
    area[0] = 0
    keep = area >= MIN_PART * area.max()
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    at_border = np.isin(np.arange(count), edge)
    main = area.argmax()
    keep &= ~at_border | (at_border[main] & (area > 0.2 * area[main]))
    return keep[labels]


def _checked(mask: Array, rgb: Array) -> Array | None:
    """The mask, or None when it cannot be a subject: too small, too large, all around, or its
    outline runs where the picture shows no edge."""
    area, contact = mask.mean(), mask[_margin(rgb)].mean()
    if not MIN_AREA <= area <= MAX_AREA or contact > MAX_BORDER_CONTACT:
        return None
    lab, near = to_lab(rgb, 1.0), (9, 9)
    inside = mask.astype(np.float32)
    share = cv2.blur(inside, near)
    outline = (share > 0.3) & (share < 0.7)
    within = cv2.blur(lab * inside[..., None], near)[outline] / share[outline][:, None]
    beyond = cv2.blur(lab * (1 - inside)[..., None], near)[outline] / (1 - share[outline][:, None])
    step = np.linalg.norm(within - beyond, axis=1)
    return mask if len(step) and np.median(step) >= MIN_STEP else None
