"""Cut the subject out of a picture: its own alpha, else a local network, else GrabCut.

The outline is found on a small copy; alpha and colours are then worked out at full resolution, in
a window around the subject only.

H, W rows and columns of the picture; h, w of the window around the subject.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from onelook.errors import ForegroundError
from onelook.foreground.colours import subject_colours
from onelook.foreground.grabcut import find_subject
from onelook.foreground.matting import soft_alpha
from onelook.foreground.rembg_session import network_mask

Array = np.ndarray

FAINT = 26  # alpha (of 255) below which a pixel counts as empty
MIN_EMPTY = 0.02  # of the picture; with less, its alpha is no cut-out (rounded corners, a frame)
MIN_SUBJECT = 16  # pixels, longest side
MAX_SUBJECT = 1706  # pixels, longest side: 2048 with the margin of `centre`

# How far soft parts may reach beyond the mask, as a fraction of the subject: further where the
# background is known well.
REACH_PLAIN, REACH_VARIED = 0.03, 0.012


@dataclass(frozen=True)
class Cutout:
    """image (h, w, 4) uint8 sRGB straight alpha; method and notes as in Foreground."""

    image: Array
    method: str
    notes: tuple[str, ...] = ()


def cut_out(pixels: Array, rembg_model: str | None = None) -> Cutout:
    """pixels (H, W, 4) uint8 -> the window around the subject, its background transparent.

    Raises ForegroundError when the picture is fully transparent or no subject stands out, and
    OptionError when `rembg_model` is not a listed name.
    """
    alpha = pixels[..., 3]
    refuse_empty(alpha)
    if (alpha < FAINT).mean() >= MIN_EMPTY:
        top, bottom, left, right = _box(alpha > 0)
        window = pixels[top : bottom + 1, left : right + 1]
        return Cutout(_shrink(window, window.shape[:2]), "alpha")
    rgb = np.ascontiguousarray(pixels[..., :3])
    network = network_mask(rgb, rembg_model)
    notes = [network.note] if network.note else []
    method, mask, reach = f"rembg:{network.session}", network.mask, REACH_VARIED
    if mask is None or not _is_subject(mask):
        if mask is not None:
            notes.append("The background removal model found nothing in the picture.")
        found = find_subject(rgb)
        if found is None:
            raise ForegroundError(
                "No subject stands out from the background; send a picture of one object on a"
                " plain background, or one whose background is already transparent."
            )
        method, mask = found.method, found.mask.astype(np.float32)
        reach = REACH_PLAIN if found.is_plain else REACH_VARIED
        if not found.is_plain:
            notes.append(
                "The background is varied, so the outline is a guess; a plain or transparent"
                " background gives a better one."
            )
    image, is_cut = _refine(pixels, mask, reach)
    if is_cut:
        notes.append("The subject reaches the picture's border and ends there.")
    return Cutout(image, method, tuple(notes))


def refuse_empty(alpha: Array) -> None:
    """Raise ForegroundError when nothing of the picture can be seen."""
    if alpha.max() < FAINT:
        raise ForegroundError(
            "The picture is fully transparent; expected one whose subject can be seen."
        )
    top, bottom, left, right = _box(alpha >= FAINT)
    size = max(bottom - top, right - left) + 1
    if size < MIN_SUBJECT:
        raise ForegroundError(
            f"All but {size} pixels of the picture are transparent; expected a subject of at least"
            f" {MIN_SUBJECT} pixels."
        )


def _is_subject(mask: Array) -> bool:
    return 0.001 <= (mask > 0.5).mean() <= 0.99


def _box(where: Array) -> tuple[int, int, int, int]:
    """First and last row and column that hold a True; there must be one."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def _refine(pixels: Array, mask: Array, reach: float) -> tuple[Array, bool]:
    """Full picture and coarse mask -> (h, w, 4) cut-out, and whether the border cuts the subject.

    The window is the mask's box and what soft parts may need around it.
    """
    height, width = pixels.shape[:2]
    top, bottom, left, right = _box(mask > 0.5)
    is_cut = top == 0 or left == 0 or bottom == mask.shape[0] - 1 or right == mask.shape[1] - 1
    size = max(bottom - top, right - left) + 1
    around = 4 + int(2 * reach * size)
    top, left = max(0, top - around), max(0, left - around)
    bottom, right = min(mask.shape[0], bottom + around + 1), min(mask.shape[1], right + around + 1)
    down, across = height / mask.shape[0], width / mask.shape[1]
    window = pixels[
        round(top * down) : max(1, round(bottom * down)),
        round(left * across) : max(1, round(right * across)),
    ]
    window = _shrink(window, (round(size * down), round(size * across)))
    rgb = np.ascontiguousarray(window[..., :3])
    alpha = soft_alpha(rgb, mask[top:bottom, left:right], reach)
    colours = subject_colours(rgb, alpha)
    alpha = np.minimum(alpha, window[..., 3].astype(np.float32) / 255)
    return np.dstack([colours, (alpha * 255 + 0.5).astype(np.uint8)]), is_cut


def _shrink(image: Array, subject: tuple[int, int]) -> Array:
    """An RGBA image scaled down so that a subject of this height and width fits MAX_SUBJECT."""
    factor = min(1.0, MAX_SUBJECT / max(subject))
    return resize_rgba(image, factor) if factor < 1 else image


def resize_rgba(image: Array, factor: float) -> Array:
    """(H, W, 4) uint8 scaled down by `factor` < 1; colours weighed by alpha where it is soft."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if image[..., 3].min() == 255:
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    alpha = image[..., 3:].astype(np.float32) / 255
    colours = cv2.resize(image[..., :3] * alpha, size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(alpha[..., 0], size, interpolation=cv2.INTER_AREA)
    colours /= np.maximum(alpha, 1e-6)[..., None]
    return (np.dstack([colours, 255 * alpha]) + 0.5).clip(0, 255).astype(np.uint8)
