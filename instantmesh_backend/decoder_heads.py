"""What is read off a triplane: the mesh models' four heads, the NeRF models' one.

Object space: [-1, 1]^3, z up, the side the picture shows faces +x. Signs as trained: the field is
negative inside.

N points, K cells of the lattice, C channels of a plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelook.elementwise import map_steadily
from onelook.nn.point_network import PointNetwork
from onelook.nn.triplane import Axes, Triplane, TriplaneField

AXES: Axes = ((0, 1), (0, 2), (2, 1))  # the planes lie along xy, xz, zy
HIDDEN = 64
WEIGHTS = 21  # of a cell, see `onelook.isosurface.flexicubes.cell_weights`
WEIGHT_FACTOR = 0.1
COLOR_MARGIN = 0.001  # colours reach this far beyond 0..1 (Barron et al., Mip-NeRF, 2021)
_CELLS = 8192  # whose corners' features are joined at a time: 60 MB


class MeshHeads(nn.Module):
    """Signed field, colour, deformation of the lattice's points, weights of its cells."""

    def __init__(self, plane_channels: int):
        super().__init__()
        features = 3 * plane_channels
        self.net_sdf = head(features, 1)
        self.net_rgb = head(features, 3)
        self.net_deformation = head(features, 3)
        self.net_weight = head(8 * features, WEIGHTS)


class NerfHead(nn.Module):
    """Density and colour."""

    def __init__(self, plane_channels: int):
        super().__init__()
        self.net = head(3 * plane_channels, 4)


@dataclass(frozen=True)
class ShapeField:
    """A mesh model's heads on one object's planes (3, C, S, S); points in object space."""

    planes: Tensor
    heads: MeshHeads

    @cached_property
    def _triplane(self) -> Triplane:
        return Triplane.of(self.planes, AXES)

    def sdf(self, points: Tensor) -> Tensor:
        """(N, 3) -> (N,), negative inside."""
        return TriplaneField(self._triplane, self.heads.net_sdf)(points)[:, 0]

    def deformation(self, points: Tensor) -> Tensor:
        """(N, 3) -> (N, 3), without limit or unit yet."""
        return TriplaneField(self._triplane, self.heads.net_deformation)(points)

    def weights(self, points: Tensor, corners: Tensor) -> Tensor:
        """points (N, 3), corners (K, 8) as rows of these -> raw weights (K, 21)."""
        features = self._triplane.features(points)
        network = PointNetwork(self.heads.net_weight)
        parts = [network(features[some].flatten(1)) for some in corners.split(_CELLS)]
        return WEIGHT_FACTOR * torch.cat(parts)

    def colors(self) -> ColorField:
        """The colours, to be asked later, too."""
        return ColorField(TriplaneField(self._triplane, self.heads.net_rgb))


@dataclass(frozen=True)
class ColorField:
    """Colours of places: the last three numbers of a field."""

    field: TriplaneField

    def __call__(self, points: Tensor) -> Tensor:
        """(N, 3) -> (N, 3), sRGB-encoded, -0.001..1.001."""
        return widened_sigmoid(self.field(points)[:, -3:])


class DensityField:
    """A NeRF model's head on one object's planes (3, C, S, S); points in object space."""

    def __init__(self, planes: Tensor, head: NerfHead):
        self.field = TriplaneField(Triplane.of(planes, AXES), head.net)
        self.colors = ColorField(self.field)

    def density(self, points: Tensor) -> Tensor:
        """(N, 3) -> (N,), above 0."""
        return activated_density(self.field(points)[:, 0])


def head(features: int, outputs: int) -> nn.Sequential:
    """The network of every head: features -> 64 -> 64 -> 64 -> outputs."""
    widths = (features, HIDDEN, HIDDEN, HIDDEN)
    layers: list[nn.Module] = []
    for width, following in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, outputs))


def activated_density(raw: Tensor) -> Tensor:
    """What the density head gives -> density."""
    return map_steadily(F.softplus, raw - 1)


def widened_sigmoid(raw: Tensor) -> Tensor:
    """What a colour head gives -> colours."""
    return map_steadily(torch.sigmoid, raw) * (1 + 2 * COLOR_MARGIN) - COLOR_MARGIN
