"""The type that a network computes in: its weights say."""

from __future__ import annotations

import torch
from torch import nn


def inner_type(blocks: nn.ModuleList) -> torch.dtype:
    """The type that a network's inner layers compute in: that of their weights."""
    return next(m.weight.dtype for m in blocks.modules() if isinstance(m, nn.Linear | nn.Conv3d))
