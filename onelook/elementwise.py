"""Elementwise functions whose last bit does not depend on the number of CPU threads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_UNSHARED = 32_768  # elements that torch leaves to one thread (at::internal::GRAIN_SIZE)
_VECTORS = 64  # elements that any processor's loop takes at once, or a whole part of them


def map_steadily(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """`function(values)`, the same to the last bit for any number of CPU threads, and for an
    element wherever it stands.

    For functions that torch approximates, such as tanh: it gives each thread a share of the
    elements and rounds those at the end of a share another way than the rest. Blocks too small
    to be shared, of a whole number of vectors, have no such end.
    """
    if values.device.type != "cpu":
        return function(values)
    flat = values.reshape(-1)
    if missing := -len(flat) % _VECTORS:
        flat = torch.cat([flat, flat.new_zeros(missing)])
    blocks = [function(block) for block in flat.split(_UNSHARED)]
    return torch.cat(blocks)[: values.numel()].reshape(values.shape)
