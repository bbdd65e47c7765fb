"""Rays of pictures, and how what lies along a ray adds up: the parts that renderers share.

World space is the network's own. A camera is OpenGL's: +x right, +y up, looking along -z; its
matrix is camera to world.

M pictures, H rows, W columns, N rays, S steps along a ray.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_SLOPE = 1e-6  # of a ray along an axis: steeper ones meet the box's sides far away
_LEAST_PASSING = 1e-10  # light that passes an opaque step, so that no product is zero


def pixel_rays(matrices: Tensor, focal: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rays through the middles of pixels: matrices (M, 4, 4) -> origins and unit directions, each
    (M, H, W, 3). focal: in pictures' heights; the lens is centred and pixels are square."""
    rows, columns = (torch.arange(n, device=matrices.device) + 0.5 for n in (height, width))
    x = (columns - width / 2) / (focal * height)
    y = (height / 2 - rows) / (focal * height)
    grid = torch.meshgrid(y, x, indexing="ij")
    own = torch.stack([grid[1], grid[0], -torch.ones_like(grid[0])], dim=-1)  # (H, W, 3)
    directions = torch.einsum("hwk,mjk->mhwj", own, matrices[:, :3, :3])
    origins = matrices[:, None, None, :3, 3].expand_as(directions)
    return origins, F.normalize(directions, dim=-1)


def box_range(origins: Tensor, directions: Tensor, half_side: float) -> tuple[Tensor, Tensor]:
    """Where rays (..., 3) enter and leave the cube [-half_side, half_side]^3: near and far (...,).

    near > far: the ray misses it.
    """
    is_flat = directions.abs() < _LEAST_SLOPE
    slopes = torch.where(is_flat, torch.full_like(directions, _LEAST_SLOPE), directions)
    at_low, at_high = (-half_side - origins) / slopes, (half_side - origins) / slopes
    near = torch.minimum(at_low, at_high).amax(dim=-1)
    return near, torch.maximum(at_low, at_high).amin(dim=-1)


def step_weights(density_times_length: Tensor) -> Tensor:
    """Density times length of each step (N, S) -> the share of the ray's light it gives (N, S)."""
    alpha = 1 - torch.exp(-density_times_length)
    passing = torch.cumprod(1 - alpha + _LEAST_PASSING, dim=-1)
    before = torch.cat([torch.ones_like(passing[:, :1]), passing[:, :-1]], dim=-1)
    return alpha * before
