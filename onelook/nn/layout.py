"""Where a batch's tokens lie: in a dense array, or as rows of items of different lengths.

A transformer block needs three things that depend on it: tokens attend to their own item's tokens,
tokens attend to their own item's condition, and a vector per item reaches each of its tokens.

B items, L tokens of an item, T rows of all items, Lk tokens of the condition, H heads, D width of
a head, C channels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from onelook.nn.attention import Groups, attention


class Layout(Protocol):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each token to the tokens of its item; q, k, v (tokens, H, D) -> (tokens, H, D)."""
        ...

    def attend_to(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each token to its item's row of k, v (B, Lk, H, D), or to the only row (1, Lk, H, D)."""
        ...

    def spread(self, per_item: Tensor) -> Tensor:
        """(B, C) or (1, C) -> what broadcasts against (tokens, C)."""
        ...


class Dense:
    """Tokens are (B, L, ...)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v)

    def attend_to(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if len(k) == len(q):
            return attention(q, k, v)
        _require_one(k, len(q))
        return attention(q.flatten(0, 1)[None], k, v)[0].view_as(q)

    def spread(self, per_item: Tensor) -> Tensor:
        return per_item[:, None]


class Rows:
    """Tokens are (T, ...), the rows of an item together, items in order."""

    def __init__(self, lengths: list[int], device: torch.device):
        self.lengths = lengths
        self._device = device

    @cached_property
    def item(self) -> Tensor:
        """(T,) int64: the item each row belongs to."""
        lengths = torch.tensor(self.lengths, device=self._device)
        return torch.repeat_interleave(lengths)

    @cached_property
    def groups(self) -> Groups:
        return Groups(self.item)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.groups.attend(q, k, v)

    def attend_to(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if len(k) == 1:
            return attention(q[None], k, v)[0]
        if len(k) != len(self.lengths):
            _require_one(k, len(self.lengths))
        parts = zip(q.split(self.lengths), k, v, strict=True)
        return torch.cat([attention(q[None], k[None], v[None])[0] for q, k, v in parts])

    def spread(self, per_item: Tensor) -> Tensor:
        return per_item if len(per_item) == 1 else per_item[self.item]


def _require_one(k: Tensor, items: int) -> None:
    if len(k) != 1:
        raise ValueError(f"the condition must have 1 or {items} rows, got {len(k)}")
