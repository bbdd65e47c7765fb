"""A shape that three planes can hold: a ball with ripples.

What is looked up in the planes is added up, so a field that is a sum of functions of two
coordinates each is held but for its sampling. S texels along a side.
"""

from __future__ import annotations

import torch
from torch import Tensor

RADIUS = 0.6  # of the ball; the planes reach to 1, where look-ups already fade to zero
RIPPLES, DEPTH = 10.0, 0.15  # radians per unit; of the field


def rippled_ball(side: int) -> Tensor:
    """Any plane (S, S): where the three add up to 1 is the surface, below it the inside."""
    along_columns, along_rows = coordinates(side)
    squares = (along_columns**2 + along_rows**2) / 2  # each coordinate is in two planes
    ripples = torch.sin(RIPPLES * along_columns) * torch.cos(RIPPLES * along_rows)
    return squares / RADIUS**2 + DEPTH * ripples


def coordinates(side: int) -> Tensor:
    """Each texel's place along the columns and along the rows, -1..1: (2, S, S)."""
    places = (torch.arange(side) + 0.5) / side * 2 - 1
    return torch.stack([places.expand(side, side), places[:, None].expand(side, side)])
