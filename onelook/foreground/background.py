"""Describe a plain background, so that what deviates from it is the subject.

The colours of the picture's border are fitted by smooth surfaces over the picture: one for a wall
or a sweep, two for a wall and a table. Soft shadows are recognised as darker background.

H, W rows and columns of the picture; N border pixels, K terms of a surface. Colours are CIE Lab.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from onelook.foreground.colours import pull_push

Array = np.ndarray

FRAME = 0.03  # width of the border that is fitted, fraction of the longer side
PLAIN_SIGMA = 3.0  # CIE Lab; a border that varies more around its surface is not plain
UNEVEN_SPREAD = 9.0  # CIE Lab; the same for a border that one surface describes loosely
MAX_UNEXPLAINED = 0.45  # of the frame that no surface describes: a subject that touches it
SHARP = 0.2  # of the whole step in one pixel: an outline; a shadow's edge is softer
SEED = 0  # of the random triples of points that a fit starts from


@dataclass(frozen=True)
class Background:
    """How far each pixel is from the background's colour surfaces, in CIE Lab.

    residual, sigma (H, W) float32: distance from the nearest surface, and that surface's spread;
    calm (H, W) bool: pixels like the background that reach the border, soft shadows included.
    """

    residual: Array
    sigma: Array
    calm: Array


def describe_background(rgb: Array) -> Background | None:
    """rgb (H, W, 3) uint8 -> its background, or None where the border is too varied."""
    height, width = rgb.shape[:2]
    thick = max(2, round(FRAME * max(height, width)))
    frame, lab = frame_of(height, width, thick, thick), to_lab(rgb, 1.5)
    fit = _even_background(lab, frame) or _uneven_background(lab, frame)
    if fit is None:
        return None
    residual, sigma, seam = fit
    calm = _touching_border((residual < np.maximum(4 * sigma, 6.0)) | seam)
    return Background(residual, sigma, calm | _shadows(lab, calm, sigma))


def to_lab(rgb: Array, sigma: float) -> Array:
    """rgb (H, W, 3) uint8, blurred by `sigma` pixels -> CIE Lab (H, W, 3) float32."""
    blurred = cv2.GaussianBlur(rgb.astype(np.float32) / 255, (0, 0), sigma)
    return cv2.cvtColor(blurred, cv2.COLOR_RGB2Lab)


def frame_of(height: int, width: int, down: int, right: int) -> Array:
    """(H, W) bool: True in a frame of `down` rows and `right` columns."""
    frame = np.ones((height, width), bool)
    frame[down : height - down, right : width - right] = False
    return frame


def _surface_terms(height: int, width: int) -> Array:
    """1, x, y, x^2, x y, y^2 for x, y in -1..1: (H, W, 6)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def _points(terms: Array, lab: Array, where: Array) -> tuple[Array, Array]:
    """terms (N, K) and colours (N, 3) float64 of up to 5000 of the pixels, evenly taken."""
    chosen = np.flatnonzero(where)
    chosen = chosen[:: len(chosen) // 5000 + 1]
    return terms.reshape(-1, terms.shape[2])[chosen], lab.reshape(-1, 3)[chosen].astype(float)


def _even_background(lab: Array, frame: Array) -> tuple[Array, Array, Array] | None:
    """Residual, sigma and seam of one smooth surface, or two, that explain most of the border.

    The second one must hold both lower or both upper corners of the picture, which a subject that
    touches the border seldom does.
    """
    terms = _surface_terms(*frame.shape)
    x, y = terms[..., 1], terms[..., 2]
    corners = [frame & (a * x > 0.9) & (b * y > 0.9) for b in (1, -1) for a in (1, -1)]
    left, surfaces = frame.copy(), []
    for used in (terms, terms[..., :3]):
        weights, sigma = _robust_surface(*_points(used, lab, left))
        surface = (used @ weights).astype(np.float32)
        residual = np.linalg.norm(lab - surface, axis=2)
        near = left & (residual < max(4 * sigma, 6.0))
        held = [near[corner].mean() > 0.5 for corner in corners]
        if sigma > PLAIN_SIGMA or (surfaces and not (all(held[:2]) or all(held[2:]))):
            break
        surfaces.append((surface, residual, np.full(frame.shape, sigma, np.float32)))
        left &= ~near
        if left.sum() < 0.15 * frame.sum():
            break
    if left.sum() > MAX_UNEXPLAINED * frame.sum():
        return None
    if len(surfaces) == 1:
        return *surfaces[0][1:], np.zeros_like(frame)
    (first, near_first, sigma_first), (second, near_second, sigma_second) = surfaces
    closer = near_second / sigma_second < near_first / sigma_first
    return (
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
        # einsum, not @: its sums do not depend on the number of threads
        normal = np.einsum("nk,nl->kl", kept, kept) + 1e-6 * len(kept) * np.eye(kept.shape[1])
        weights = np.linalg.solve(normal, np.einsum("nk,nc->kc", kept, colours[keep]))
        distance = np.linalg.norm(colours - terms @ weights, axis=1)
        sigma = max(float(np.median(distance[keep])) / 1.538, 0.35)
        keep = distance <= cut * sigma
    return weights, sigma


def _uneven_background(lab: Array, frame: Array) -> tuple[Array, Array, Array] | None:
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
    return residual, spreads, np.zeros_like(frame)


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
