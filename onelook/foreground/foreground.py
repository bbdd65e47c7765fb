"""Foreground: the picture's subject, cut out; what every backend receives.

H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Foreground:
    """The subject on a transparent square.

    image (S, S, 4) uint8, sRGB, straight alpha. The subject is centred; its colours are free of the
    old background and go on under the transparent pixels, so that filtering brings no halo.
    method: how the cut-out was found: "alpha", "rembg:<session>", "grabcut", "rectangle" or "none".
    notes: sentences the user should read, such as a fall-back that was taken.
    """

    image: Array
    method: str
    notes: tuple[str, ...] = ()
