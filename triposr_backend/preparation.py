"""Prepare a picture as the original does: framed, over grey, resized to what the network reads.

H rows, W columns, S pixels along a side of the network's picture.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Array = np.ndarray

GREY = 0.5  # what the network has seen behind every object


def over_grey(image: Array) -> Array:
    """(H, W, 4) uint8, straight alpha -> (H, W, 3) uint8, cut off and not rounded."""
    scaled = image.astype(np.float32) / np.float32(255)
    alpha = scaled[..., 3:]
    mixed = scaled[..., :3] * alpha + (1 - alpha) * np.float32(GREY)
    return (mixed * np.float32(255)).astype(np.uint8)


def network_pixels(image: Array, size: int) -> Tensor:
    """image (H, W, 3) uint8 -> (1, 3, S, S) float32 0..1; the aspect is not kept."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).float() / 255
    planar = pixels.movedim(-1, 0)[None]
    return F.interpolate(planar, (size, size), mode="bilinear", align_corners=False, antialias=True)
