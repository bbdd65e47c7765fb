"""Triplanes: features of a point from three planes, and a small network that reads them.

Chan et al., Efficient Geometry-aware 3D Generative Adversarial Networks, CVPR 2022. A point is
looked up in each plane at two of its coordinates, bilinearly; beyond the planes there is nothing
(zeros). A look-up is a weighted sum of rows of a table, four per plane, so a network's first layer
can be worked out once for all texels: `TriplaneField` then reads 64 numbers instead of hundreds.
Everything a point gives depends on that point alone, to the last bit.

N points, S texels along a side, C channels of a plane, W width of the network's first layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelook.nn.point_network import PointNetwork

# Which coordinates each plane is looked up at: (along its columns, along its rows).
Axes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

_POINTS = 65_536  # at a time on a CPU: their weights and features stay in its cache
_DEVICE_POINTS = 1 << 20  # at a time on a GPU


@dataclass(frozen=True)
class Triplane:
    """Planes of one object, ready for look-ups.

    texels (3 * S * S, C): plane by plane, row by row. axes: see `Axes`. reach: the coordinate of
    the planes' border.
    """

    texels: Tensor
    side: int
    axes: Axes
    reach: float = 1.0

    @staticmethod
    def of(planes: Tensor, axes: Axes, reach: float = 1.0) -> Triplane:
        """planes (3, C, S, S)."""
        if planes.ndim != 4 or planes.shape[0] != 3 or planes.shape[2] != planes.shape[3]:
            raise ValueError(f"planes must have shape (3, C, S, S), got {tuple(planes.shape)}")
        texels = planes.float().permute(0, 2, 3, 1).flatten(0, 2).contiguous()
        return Triplane(texels, planes.shape[-1], axes, reach)

    def features(self, points: Tensor) -> Tensor:
        """points (N, 3) -> features (N, 3 * C), plane by plane."""
        rows, shares = self.look_up(points)
        flat = rows.flatten(0, 1), shares.flatten(0, 1)  # (3 N, 4) each
        return _weighted_sum(self.texels, *flat).unflatten(0, (-1, 3)).flatten(1)

    def look_up(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """points (N, 3) -> rows of the table and their shares, (N, 3, 4) each."""
        # Points last, so that the arithmetic runs along them; turned round at the end.
        places = ((points.T / self.reach + 1) * self.side - 1) / 2  # in texels, 0: first's middle
        low = places.floor()
        ends = torch.stack([low, low + 1])  # (2, 3, N)
        share = torch.stack([low + 1 - places, places - low])
        share *= (ends >= 0) & (ends < self.side)
        ends = ends.clamp_(0, self.side - 1).to(torch.int32)
        columns, lines = ([pair[i] for pair in self.axes] for i in range(2))
        first = torch.arange(3, dtype=torch.int32, device=points.device)[:, None] * self.side**2
        rows = (ends[:, lines] * self.side + first)[:, None] + ends[:, columns]  # (2, 2, 3, N)
        shares = share[:, lines][:, None] * share[:, columns]
        return tuple(x.permute(3, 2, 0, 1).flatten(2) for x in (rows, shares))


class TriplaneField:
    """A `PointNetwork` on a triplane's features, its first layer worked out for all texels.

    Holds tensors of its own: planes and network may leave the device.
    """

    def __init__(self, triplane: Triplane, network: nn.Sequential):
        """network: see `PointNetwork`; its inputs are the triplane's features."""
        first = network[0].weight.float().unflatten(1, (3, -1))  # (W, 3, C)
        planes = triplane.texels.unflatten(0, (3, -1))
        folded = torch.einsum("pnc,wpc->pnw", planes, first).flatten(0, 1).contiguous()
        self._triplane = Triplane(folded, triplane.side, triplane.axes, triplane.reach)
        self._bias = network[0].bias.detach().float().clone()
        self._network = PointNetwork(network)

    @property
    def device(self) -> torch.device:
        return self._bias.device

    @property
    def side(self) -> int:
        """Texels along a side of the planes."""
        return self._triplane.side

    def __call__(self, points: Tensor, at_once: int = 0) -> Tensor:
        """points (N, 3) float32 on the field's device -> what the last layer gives (N, width).

        at_once: points worked on together, 0 for a choice of ours; the result does not depend on
        it.
        """
        at_once = at_once or (_POINTS if points.device.type == "cpu" else _DEVICE_POINTS)
        out = torch.empty(len(points), self._network.width, device=points.device)
        for first in range(0, len(points), at_once):
            part = slice(first, first + at_once)
            rows, shares = self._triplane.look_up(points[part])
            hidden = _weighted_sum(self._triplane.texels, rows.flatten(1), shares.flatten(1))
            out[part] = self._network.finish(hidden.add_(self._bias))
        return out


def sample_planes(planes: Tensor, points: Tensor, axes: Axes) -> Tensor:
    """planes (3, C, S, S), points (N, 3) in -1..1 -> features (N, 3 * C).

    The plain twin of `Triplane.features`: defines what it must give.
    """
    at = torch.stack([points[:, list(pair)] for pair in axes])[:, :, None]  # (3, N, 1, 2)
    sampled = F.grid_sample(planes, at, padding_mode="zeros", align_corners=False)
    return sampled[..., 0].permute(2, 0, 1).flatten(1)  # (3, C, N) -> (N, 3 C)


def _weighted_sum(table: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """table (T, C), rows and shares (n, k) -> (n, C), each summed in the order of its rows."""
    return F.embedding_bag(rows, table, per_sample_weights=shares, mode="sum")
