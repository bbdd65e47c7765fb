"""Find the subject without a network: what does not look like the picture's border.

First the border is described by a smooth colour surface; where that holds (a plain or softly shaded
background), what deviates is the subject. Where the border is too varied, everything off the frame
is offered to GrabCut, which separates what the frame is made of from what it is not.

H, W rows and columns of the work picture (longer side at most `WORK_SIZE`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from onelook.foreground.colours import pull_push

Array = np.ndarray

WORK_SIZE = 512
ROUGH_SIZE = 256  # the rectangle's first rounds: GrabCut's time grows faster than its pixels
FRAME = 0.03  # border frame of the colour surface, fraction of the longer side
MARGIN = 0.05  # frame outside the rectangle, fraction of each side
PLAIN_SIGMA = 3.0  # CIE Lab; a border that varies more around its surface is not plain
UNEVEN_SPREAD = 9.0  # CIE Lab; the same for a border that one surface describes loosely
MAX_UNEXPLAINED = 0.35  # of the frame that no surface describes: a subject that touches it
SHARP = 0.2  # of the whole step in one pixel: an outline; a shadow's edge is softer
ROUNDS = 3
SEED = 0  # GrabCut's k-means draws from OpenCV's generator

MAX_BORDER_CONTACT = 0.5  # a mask over more of the frame than this is not a subject
MIN_AREA, MAX_AREA = 0.002, 0.97  # of the picture
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
    mask = _border_mask(small)
    if mask is not None:
        return CoarseMask(mask, "grabcut")
    mask = _rectangle_mask(small)
    return None if mask is None else CoarseMask(mask, "rectangle")


def _shrink(rgb: Array, size: int) -> Array:
    height, width = rgb.shape[:2]
    factor = min(1.0, size / max(height, width))
    wanted = (max(8, round(width * factor)), max(8, round(height * factor)))
    return cv2.resize(rgb, wanted, interpolation=cv2.INTER_AREA)


def _lab(rgb: Array, sigma: float) -> Array:
    blurred = cv2.GaussianBlur(rgb.astype(np.float32) / 255, (0, 0), sigma)
    return cv2.cvtColor(blurred, cv2.COLOR_RGB2Lab)


def _frame(height: int, width: int, down: int, right: int) -> Array:
    frame = np.ones((height, width), bool)
    frame[down : height - down, right : width - right] = False
    return frame


# --- a border that smooth surfaces describe ---------------------------------------------------


@dataclass(frozen=True)
class _Background:
    """How far each pixel is from the background's colour surfaces, in CIE Lab.

    residual, sigma (H, W) float32: distance from the nearest surface, and that surface's spread;
    seam (H, W) bool: the blurred line between two surfaces.
    """

    residual: Array
    sigma: Array
    seam: Array


def _border_mask(small: Array) -> Array | None:
    """The subject on a plain or softly shaded background; None where that is not the case."""
    height, width = small.shape[:2]
    thick = max(2, round(FRAME * max(height, width)))
    frame = _frame(height, width, thick, thick)
    lab = _lab(small, 1.5)
    found = _even_background(lab, frame) or _uneven_background(lab, frame)
    if found is None:
        return None
    residual, sigma = found.residual, found.sigma
    calm = _touching_border((residual < np.maximum(4 * sigma, 6.0)) | found.seam)
    calm |= _shadows(lab, calm, sigma)
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
    return _checked(_main_parts(mask), frame)


def _surface_terms(height: int, width: int) -> Array:
    """1, x, y, x^2, x y, y^2 for x, y in -1..1: (H, W, 6)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def _points(terms: Array, lab: Array, where: Array) -> tuple[Array, Array]:
    """terms (N, K) and colours (N, 3) float64 of up to 5000 of the pixels, evenly taken."""
    chosen = np.flatnonzero(where)
    chosen = chosen[:: len(chosen) // 5000 + 1]
    return terms.reshape(-1, terms.shape[2])[chosen], lab.reshape(-1, 3)[chosen].astype(float)


def _even_background(lab: Array, frame: Array) -> _Background | None:
    """One smooth surface, or two (a wall and a table), that explain most of the border.

    The second one must hold a corner of the picture, which a subject that touches the border
    seldom does.
    """
    terms = _surface_terms(*frame.shape)
    corners = frame & (np.abs(terms[..., 1]) > 0.9) & (np.abs(terms[..., 2]) > 0.9)
    left, surfaces = frame.copy(), []
    for used in (terms, terms[..., :3]):
        weights, sigma = _robust_surface(*_points(used, lab, left))
        surface = (used @ weights).astype(np.float32)
        residual = np.linalg.norm(lab - surface, axis=2)
        near = left & (residual < max(4 * sigma, 6.0))
        if sigma > PLAIN_SIGMA or (surfaces and (near & corners).sum() < 0.2 * corners.sum()):
            break
        surfaces.append((surface, residual, np.full(frame.shape, sigma, np.float32)))
        left &= ~near
        if left.sum() < 0.15 * frame.sum():
            break
    if left.sum() > MAX_UNEXPLAINED * frame.sum():
        return None
    if len(surfaces) == 1:
        return _Background(*surfaces[0][1:], seam=np.zeros_like(frame))
    (first, near_first, sigma_first), (second, near_second, sigma_second) = surfaces
    closer = near_second / sigma_second < near_first / sigma_first
    return _Background(
        np.where(closer, near_second, near_first),
        np.where(closer, sigma_second, sigma_first),
        _seam(lab, first, second, near_first < near_second),
    )


def _seam(lab: Array, first: Array, second: Array, is_first: Array) -> Array:
    """Pixels near the line between two surfaces whose colour is a mix of both."""
    across = second - first
    share = ((lab - first) * across).sum(2) / np.maximum((across * across).sum(2), 1.0)
    mixed = first + np.clip(share, 0, 1)[..., None] * across
    is_mix = np.linalg.norm(lab - mixed, axis=2) < 6.0
    one, other = (cv2.blur(side.astype(np.float32), (9, 9)) > 0.1 for side in (is_first, ~is_first))
    return is_mix & one & other


def _robust_surface(terms: Array, colours: Array) -> tuple[Array, float]:
    """terms (N, K), colours (N, 3) -> weights (K, 3) and sigma of the best-fitting 40 % or more.

    The start is the best of many planes through three random points (least quantile of squares),
    so that a subject or a table on a part of the border does not pull it; rounds of least squares
    then fit all points within 3 sigma.
    """
    random = np.random.default_rng(SEED)
    sample = random.choice(len(terms), min(len(terms), 400), replace=False)
    planes, some_colours = terms[sample, :3], colours[sample]
    picks = random.integers(0, len(sample), (100, 3))
    corner, target = planes[picks], some_colours[picks]  # (100, 3, 3) each
    normal = corner.transpose(0, 2, 1) @ corner + 1e-3 * np.eye(3)
    weights = np.linalg.solve(normal, corner.transpose(0, 2, 1) @ target)
    distance = np.linalg.norm(some_colours - planes @ weights, axis=2)  # (100, 400)
    scores = np.quantile(distance, 0.4, axis=1)
    best = scores.argmin()
    distance = np.linalg.norm(colours - terms[:, :3] @ weights[best], axis=1)
    keep = distance <= max(2 * scores[best], 1.0)
    return _trimmed_fit(terms, colours, keep, rounds=6)


def _trimmed_fit(
    terms: Array, colours: Array, keep: Array, rounds: int, cut: float = 3.76
) -> tuple[Array, float]:
    """Least squares over the kept points, those within `cut` sigma being kept next.

    The lengths of 3-vectors of unit normal noise have median 1.538, and exceed 3.76 as rarely as
    one normal number exceeds 3.
    """
    for _ in range(rounds):
        kept = terms[keep]
        normal = kept.T @ kept + 1e-6 * len(kept) * np.eye(kept.shape[1])
        weights = np.linalg.solve(normal, kept.T @ colours[keep])
        distance = np.linalg.norm(colours - terms @ weights, axis=1)
        sigma = max(float(np.median(distance[keep])) / 1.538, 0.35)
        keep = distance <= cut * sigma
    return weights, sigma


def _uneven_background(lab: Array, frame: Array) -> _Background | None:
    """One surface through the whole frame, loosely: a sky down to its horizon, a vignetted wall.

    What it leaves over is shape more than noise and has longer tails, so it is cut later and
    counted as wider than noise of this median.
    """
    terms = _surface_terms(*frame.shape)
    inner, colours = _points(terms, lab, frame)
    everything = np.ones(len(inner), bool)
    weights, sigma = _trimmed_fit(inner, colours, everything, rounds=4, cut=2 * 3.76)
    spread = 2.28 * sigma
    residual = np.linalg.norm(lab - terms @ weights, axis=2).astype(np.float32)
    explained = (residual[frame] < 4 * spread).mean()
    if spread > UNEVEN_SPREAD or explained < 1 - MAX_UNEXPLAINED:
        return None
    spreads = np.full(frame.shape, spread, np.float32)
    return _Background(residual, spreads, seam=np.zeros_like(frame))


def _touching_border(region: Array) -> Array:
    """The parts of a region that reach the picture's border."""
    _, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return region & np.isin(labels, np.unique(edge))


def _shadows(lab: Array, calm: Array, sigma: Array) -> Array:
    """Darker patches of the background: shadows, which fade out where an object has an outline.

    lab (H, W, 3), calm (H, W) bool background -> (H, W) bool.
    """
    filled = pull_push(lab, calm.astype(np.float32))
    share = lab[..., 0] / np.maximum(filled[..., 0], 1.0)
    # a shadow dims a and b along with L
    chroma = np.linalg.norm(lab[..., 1:] - share[..., None] * filled[..., 1:], axis=2)
    like = (share > 0.3) & (share < 1.05) & (chroma < np.maximum(4 * sigma, 6.0))
    slope = _slope(lab)
    drop = cv2.dilate(np.abs(lab[..., 0] - filled[..., 0]), np.ones((9, 9), np.uint8))
    steep = (slope > 1.5 + 2 * sigma) & (slope > SHARP * drop)
    region = ((like & ~steep) | calm).astype(np.uint8)
    core = cv2.morphologyEx(region, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
    grown = (_touching_border(core | calm) & ~calm).astype(np.uint8)
    grown = cv2.morphologyEx(grown, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels = cv2.connectedComponents(grown)
    near_calm = cv2.dilate(calm.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    near_steep = cv2.dilate(steep.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    accepted = np.zeros(count, bool)
    for part in range(1, count):
        rim = near_calm & (labels == part)
        accepted[part] = rim.any() and near_steep[rim].mean() < 0.3
    return accepted[labels]


def _slope(lab: Array) -> Array:
    """Length of the colour gradient, CIE Lab per pixel: (H, W, 3) -> (H, W) float32."""
    across, down = (
        cv2.Sobel(lab, cv2.CV_32F, dx, dy, ksize=3, scale=1 / 8) for dx, dy in ((1, 0), (0, 1))
    )
    return np.sqrt((across * across + down * down).sum(axis=2))


# --- a border of many colours ---------------------------------------------------------------


def _rectangle_mask(small: Array) -> Array | None:
    """The subject against a varied background: what the picture's frame is not made of."""
    rough = _shrink(small, ROUGH_SIZE)
    height, width = rough.shape[:2]
    frame = _frame(height, width, max(1, int(MARGIN * height)), max(1, int(MARGIN * width)))
    back = frame & ~_central_colours(_lab(rough, 1.0), frame)
    labels = np.where(back, cv2.GC_BGD, cv2.GC_PR_FGD).astype(np.uint8)
    if not back.any():
        return None
    mask = _main_parts(_grabcut(rough, labels, ROUNDS))
    if not mask.any() or mask.all():
        return None
    mask = _sharpen(small, mask)
    height, width = small.shape[:2]
    frame = _frame(height, width, max(1, int(MARGIN * height)), max(1, int(MARGIN * width)))
    return _checked(_main_parts(mask), frame)


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


# --- what both share ------------------------------------------------------------------------


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


def _checked(mask: Array, frame: Array) -> Array | None:
    """The mask, or None when it cannot be a subject: too small, too large, all around."""
    area, contact = mask.mean(), mask[frame].mean()
    good = MIN_AREA <= area <= MAX_AREA and contact <= MAX_BORDER_CONTACT
    return mask if good else None
