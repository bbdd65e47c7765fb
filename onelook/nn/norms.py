"""Norms that compute in float32 and return the type of their input.

B batch, T rows, C channels, H heads, D width of a head, G groups.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelook.nn.pieces import in_pieces


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last axis, in float32 whatever the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()

        def norm(rows: Tensor) -> Tensor:
            return F.layer_norm(rows.float(), self.normalized_shape, weight, bias, self.eps).to(
                x.dtype
            )

        return _by_rows(norm, x)


class ChannelLayerNorm(LayerNorm):
    """Layer norm over the channels of each cell of a grid: (B, C, ...) -> the same, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class HeadRMSNorm(nn.Module):
    """Unit length per head, then a learned scale: (..., H, D) -> the same, in float32.

    The length is bounded from below by 1e-12, the scale is `gamma` times the square root of D.
    """

    def __init__(self, heads: int, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, width))

    def forward(self, x: Tensor) -> Tensor:
        return _by_rows(self._norm, x, axes=2)

    def over(self, x: Tensor) -> Tensor:
        """The same, written over x: for inference."""
        return _by_rows(self._norm, x, axes=2, over=True)

    def _norm(self, x: Tensor) -> Tensor:
        scale = self.gamma.float() * x.shape[-1] ** 0.5
        return (F.normalize(x.float(), dim=-1) * scale).to(x.dtype)


class RowGroupNorm(nn.Module):
    """Group norm of a sparse tensor's rows: statistics over all rows of an item and the channels
    of a group, in float32."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5):
        super().__init__()
        if channels % groups:
            raise ValueError(f"channels must be a multiple of {groups}, got {channels}")
        self.groups = groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        """x (T, C), rows of each item together; lengths: rows per item -> (T, C)."""
        parts = [self._norm(part) for part in x.split(lengths)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _norm(self, x: Tensor) -> Tensor:
        grouped = x.float().unflatten(-1, (self.groups, -1))  # (rows, G, C / G)
        variance, mean = torch.var_mean(grouped, dim=(0, 2), correction=0)  # (G,) each
        scale = (
            self.weight.float().view(self.groups, -1) * torch.rsqrt(variance + self.eps)[:, None]
        )
        shift = self.bias.float().view(self.groups, -1) - mean[:, None] * scale
        return torch.addcmul(shift, grouped, scale).flatten(1).to(x.dtype)


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """Layer norm over the last axis without weights, in float32."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)  # torch's own kernels compute halves in float32


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """`layer_norm(x) * (1 + scale) + shift`; shift and scale (..., C), broadcast against x."""
    if scale.numel() == x.shape[-1]:  # the same for every token: one pass over memory
        weight, bias = (1 + scale).flatten().to(x.dtype), shift.flatten().to(x.dtype)
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return torch.addcmul(shift, layer_norm(x, eps), 1 + scale)


def _by_rows(
    norm: Callable[[Tensor], Tensor], x: Tensor, axes: int = 1, over: bool = False
) -> Tensor:
    """`norm(x)` in pieces; a row is the last `axes` axes of x. Two copies of a piece in float32."""
    rows = x.flatten(0, -1 - axes)
    row_bytes = 8 * rows.shape[1:].numel()
    done = in_pieces(norm, rows, row_bytes=row_bytes, out=rows if over else None)
    return done.view(x.shape)
