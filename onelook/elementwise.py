"""Elementwise functions whose last bit does not depend on the number of CPU threads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_UNSHARED = 32_768  # elements that torch leaves to one thread (at::internal::GRAIN_SIZE)


def map_steadily(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """`function(values)`, the same to the last bit for any number of CPU threads.

    For functions that torch approximates, such as tanh: it gives each thread a share of the
    elements and rounds those at the end of a share another way than the rest. In blocks too small
    to be shared the ends are always the same.
    """
    if values.device.type != "cpu":
        return function(values)
    blocks = values.reshape(-1).split(_UNSHARED)
    return torch.cat([function(block) for block in blocks]).reshape(values.shape)
