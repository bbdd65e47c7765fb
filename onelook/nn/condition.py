"""What a flow model is conditioned on, with what its blocks have computed from it.

A condition stays the same through all steps of a sampler, so each block projects it to keys and
values once. It remembers them: make a new one per request and stage, and drop it afterwards.

B items (or 1 for all), L tokens, C channels, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

T = TypeVar("T")


class Condition:
    """tokens (B, L, C); 1 row serves any number of items."""

    def __init__(self, tokens: Tensor):
        self.tokens = tokens
        self._made: dict[nn.Module, object] = {}

    @staticmethod
    def zero(like: Tensor) -> Condition:
        """The condition of zeros, of the width and device of `like` (B, L, C).

        All its keys are equal, so that attention to them gives the mean of equal values: their
        number does not matter, and one token stands for all.
        """
        return Condition(like.new_zeros(1, 1, like.shape[-1]))

    @property
    def has_one_token(self) -> bool:
        """Attention to a single token is that token's value: a vector per item."""
        return self.tokens.shape[1] == 1

    def once(self, block: nn.Module, make: Callable[[Tensor], T]) -> T:
        """`make(tokens)`, computed when `block` asks first and remembered for it."""
        if block not in self._made:
            self._made[block] = make(self.tokens)
        return self._made[block]


def as_condition(condition: Tensor | Condition) -> Condition:
    return condition if isinstance(condition, Condition) else Condition(condition)
