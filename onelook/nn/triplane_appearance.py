"""A triplane's colours as an Appearance: asked of the network itself at every point.

N points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from onelook.canonical import CanonicalFrame
from onelook.surface import Material

Array = np.ndarray


class TriplaneAppearance:
    """Opaque and matte, in the colours a function of the place gives; an `Appearance`."""

    def __init__(
        self,
        colors: Callable[[Tensor], Tensor],
        frame: CanonicalFrame,
        device: torch.device,
        roughness: float = 0.9,
    ):
        """colors: points (N, 3) in the network's frame, on `device` -> (N, 3) 0..1, sRGB-encoded.
        frame: from the network's frame to canonical space."""
        self._colors = colors
        self._frame = frame
        self._device = device
        self._roughness = roughness

    @torch.inference_mode()
    def sample(self, points: Array, normals: Array) -> Material:
        """points (N, 3) float32, canonical space -> Material of N points; normals play no part."""
        own = torch.from_numpy(self._frame.leave(points)).to(self._device)
        return Material.matte(self._colors(own).cpu().numpy(), self._roughness)
