"""A small network asked at many points, each answer the same to the last bit in any company.

torch rounds a product of matrices otherwise where few rows, or a number of columns that is no whole
number of vectors, are shared between threads, and an approximated activation at the end of each
thread's share. So rows and columns are filled up, and on a CPU activations come in blocks too small
to be shared.

n points, C inputs, W width of the first layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_ROWS = 64  # of a product
_VECTOR = 16  # columns; outputs of a few columns are summed in another, steady way
_FEW = 4
_ELEMENTS = 32_768  # of an activation, few enough for torch to give them to one thread


class PointNetwork:
    """Linear, activation, Linear, ..., Linear, in float32; holds tensors of its own."""

    def __init__(self, network: nn.Sequential):
        """network: its activations all ReLU or all SiLU."""
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        self._activate = _in_place(network[1])
        self.width = layers[-1].out_features
        self._layers = [_filled(layer) for layer in layers]

    def __call__(self, inputs: Tensor) -> Tensor:
        """(n, C) -> (n, width)."""
        count = len(inputs)
        weight, bias = self._layers[0]
        return self.finish(torch.addmm(bias, _fill_rows(inputs), weight))[:count]

    def finish(self, hidden: Tensor) -> Tensor:
        """What the first layer gives (n, W), which is spent -> (n, width)."""
        out = torch.empty(len(hidden), self.width, device=hidden.device)
        is_host = hidden.device.type == "cpu"
        step = max(LEAST_ROWS, _ELEMENTS // hidden.shape[1]) if is_host else max(len(hidden), 1)
        for start in range(0, len(hidden), step):
            rows = slice(start, start + step)
            block = _fill_rows(hidden[rows])
            for weight, bias in self._layers[1:]:
                block = torch.addmm(bias, self._activate(block), weight)
            out[rows] = block[: len(out[rows]), : self.width]
        return out


def _filled(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """The layer's weight (inputs, outputs) and bias, outputs filled up with zeros."""
    weight, bias = layer.weight.detach().float(), layer.bias.detach().float()
    missing = -len(weight) % (2 * _VECTOR) if len(weight) > _FEW else 0
    return F.pad(weight.t(), (0, missing)).contiguous(), F.pad(bias, (0, missing)).clone()


def _fill_rows(rows: Tensor) -> Tensor:
    missing = LEAST_ROWS - len(rows)
    return F.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows


def _in_place(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    if isinstance(activation, nn.ReLU):
        return torch.relu_
    if isinstance(activation, nn.SiLU):
        return lambda x: F.silu(x, inplace=True)
    raise ValueError(f"the activation must be ReLU or SiLU, got {type(activation).__name__}")
