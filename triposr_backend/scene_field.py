"""Density and colour anywhere in a triplane.

World space: [-radius, radius]^3, z up, the side the picture shows faces +x.

N points, C channels of a plane, S texels along its side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onelook.elementwise import map_steadily
from onelook.nn.triplane import Axes, Triplane, TriplaneField
from triposr_backend.config import RendererConfig
from triposr_backend.scene_model import Decoder

AXES: Axes = ((0, 1), (0, 2), (1, 2))  # the planes lie along xy, xz, yz


class SceneField:
    """One object's planes (3, C, S, S) and the decoder that reads them.

    Holds tensors of its own, so it may be asked when the network has left the device.
    """

    def __init__(
        self, planes: Tensor, decoder: Decoder, config: RendererConfig, chunk_size: int = 0
    ):
        """chunk_size: points worked on at once, 0 for a choice of ours; results are the same."""
        triplane = Triplane.of(planes, AXES, config.radius)
        self.config = config
        self._field = TriplaneField(triplane, decoder.layers)
        self._chunk_size = chunk_size

    @property
    def device(self) -> torch.device:
        return self._field.device

    @property
    def side(self) -> int:
        """Texels along a side of the planes."""
        return self._field.side

    def raw(self, points: Tensor) -> Tensor:
        """(N, 3) -> (N, 4): density, colour, before their activation."""
        return self._field(points, self._chunk_size)

    def density(self, points: Tensor) -> Tensor:
        """(N, 3) -> (N,), above 0."""
        return self.density_of(self.raw(points))

    def colors(self, points: Tensor) -> Tensor:
        """(N, 3) -> (N, 3) 0..1, sRGB-encoded."""
        return self.color_of(self.raw(points))

    def density_of(self, raw: Tensor) -> Tensor:
        """raw (N, 4) -> (N,)."""
        return map_steadily(torch.exp, raw[:, 0] + self.config.density_bias)

    def color_of(self, raw: Tensor) -> Tensor:
        """raw (N, 4) -> (N, 3)."""
        return map_steadily(torch.sigmoid, raw[:, 1:])
