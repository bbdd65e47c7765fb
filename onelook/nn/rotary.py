"""Places as rotations: pairs of a head's channels turned by angles that grow with x, y and z.

Su et al. 2021, "RoFormer"; in three dimensions and with adjacent pairs as TRELLIS.2 has it: of the
D / 2 pairs the first third turns with x, the next with y, then z; pairs left over are not turned.

T tokens, H heads, D width of a head.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from onelook.nn.layout import Layout
from onelook.nn.pieces import in_pieces


def rotary_frequencies(head_width: int, device: torch.device | str | None = None) -> Tensor:
    """(D // 6,) float32: 10000^(-k/n), k = 0..n - 1, for each axis."""
    n = head_width // 2 // 3
    return 1.0 / 10000.0 ** (torch.arange(n, dtype=torch.float32, device=device) / n)


def rotary_phases(places: Tensor, head_width: int) -> Tensor:
    """places (T, 3) -> (T, D / 2) complex64, each of length 1."""
    frequencies = rotary_frequencies(head_width, places.device)
    angles = (places[..., None].float() * frequencies).flatten(1)  # (T, 3 n)
    angles = F.pad(angles, (0, head_width // 2 - angles.shape[1]))
    return torch.polar(torch.ones_like(angles), angles)


@cache
def grid_phases(size: int, head_width: int) -> Tensor:
    """`rotary_phases` of all cells of a cube, x slowest: (size^3, D / 2), on the CPU."""
    with torch.device("cpu"), torch.inference_mode(False):
        cells = torch.arange(size)
        return rotary_phases(torch.cartesian_prod(cells, cells, cells), head_width)


def rotate(x: Tensor, phases: Tensor) -> Tensor:
    """x (T, H, D), phases (T, D / 2) -> x turned, in float32 and back to the type of x."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())  # (T, H, D / 2)
    return torch.view_as_real(pairs * phases[:, None]).flatten(-2).to(x.dtype)


class Rotated:
    """A layout whose tokens know their places when they attend to each other."""

    def __init__(self, layout: Layout, phases: Tensor):
        """phases (T, D / 2): of all rows, or of the tokens that every item of a batch has."""
        self._layout = layout
        self._phases = phases
        self.attend_to = layout.attend_to
        self.spread = layout.spread

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As the layout's own, q and k (tokens, H, D) turned first; they are written over."""
        for x in (q, k):
            rows = x.view(-1, *x.shape[-2:])  # (T, H, D)
            phases = self._phases.repeat(len(rows) // len(self._phases), 1)
            row_bytes = 8 * rows.shape[1:].numel()  # two copies in float32
            in_pieces(rotate, rows, phases, row_bytes=row_bytes, out=rows)
        return self._layout.attend(q, k, v)
