"""The types that a network computes in: its weights say.

Official checkpoints were trained with their inner layers in half precision and everything else in
float32, whatever type the file stores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from onelook.nn.sparse_conv import PointwiseConv, SubmanifoldConv

_LAYERS = (nn.Linear, nn.Conv3d, SubmanifoldConv, PointwiseConv)


def inner_type(blocks: nn.ModuleList) -> torch.dtype:
    """The type that a network's inner layers compute in: that of their weights."""
    return next(module.weight.dtype for module in blocks.modules() if isinstance(module, _LAYERS))


def half_keys(network: nn.Module, torso: Sequence[str]) -> set[str]:
    """Keys of the linear and convolution layers in the parts of the network named `torso`: those
    that compute in half precision."""
    return {
        f"{name}.{key}"
        for name, module in network.named_modules()
        if isinstance(module, _LAYERS) and name.split(".")[0] in torso
        for key, _ in module.named_parameters()
    }
