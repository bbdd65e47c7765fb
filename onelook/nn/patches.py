"""Cells of a dense grid as channels of a coarser one, and back.

B items, C channels, p patch size, X, Y, Z cells.
"""

from __future__ import annotations

from torch import Tensor


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, X, Y, Z) -> (B, C p^3, X/p, Y/p, Z/p); channel ((c p + i) p + j) p + k."""
    for axis in (4, 3, 2):
        x = x.unflatten(axis, (-1, patch))  # (B, C, X/p, p, Y/p, p, Z/p, p)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def unpatchify(x: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify`; with patch 2 also the 3-D pixel shuffle."""
    x = x.unflatten(1, (-1, patch, patch, patch))  # (B, C, p, p, p, X, Y, Z)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)
