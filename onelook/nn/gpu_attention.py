"""Which attention a GPU computes in 16 bits: flash-attn where it is installed, else torch's own.

Chosen when first asked for and named in the log; the environment variable ATTN_BACKEND may name one
of BACKENDS instead. Of torch's own, the dense form is scaled_dot_product_attention; the form for
groups is torch.nn.attention.varlen, where this torch has it.

L tokens, T rows of all groups, G groups, H heads, D width of a head, B batch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from onelook.errors import OptionError

BACKENDS = ("auto", "flash_attn", "sdpa", "naive")
VARIABLE = "ATTN_BACKEND"
# What flash attention's kernels take (github.com/Dao-AILab/flash-attention).
WIDEST_HEAD, OLDEST_CAPABILITY = 256, 8

# q, k, v (B, L, H, D) -> (B, L, H, D)
Dense = Callable[[Tensor, Tensor, Tensor], Tensor]
# q, k, v (T, H, D) group by group; starts (G + 1,) int32; length of the longest -> (T, H, D)
Ragged = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuAttention:
    """A choice. dense, ragged: None where the portable form is taken."""

    name: str
    dense: Dense | None
    ragged: Ragged | None


def is_for_flash(q: Tensor) -> bool:
    """Whether q (..., D) is what flash attention's kernels take."""
    width = q.shape[-1]
    fits = q.is_cuda and q.element_size() == 2 and width % 8 == 0 and width <= WIDEST_HEAD
    return fits and torch.cuda.get_device_capability(q.device)[0] >= OLDEST_CAPABILITY


@cache
def gpu_attention() -> GpuAttention:
    """The choice of this process.

    Raises OptionError when ATTN_BACKEND names an unknown one, or one that is not installed.
    """
    wish = os.environ.get(VARIABLE, "auto")
    if wish not in BACKENDS:
        raise OptionError(f"{VARIABLE} must be one of {', '.join(BACKENDS)}, got {wish!r}")
    chosen = _choose(wish)
    _log.info("attention on a GPU: %s", chosen.name)
    return chosen


def _choose(wish: str) -> GpuAttention:
    if wish == "naive":
        from onelook.nn.attention import attention_plain

        return GpuAttention("naive", attention_plain, attend_ragged_plain)
    if wish != "sdpa":
        try:
            from flash_attn import flash_attn_func, flash_attn_varlen_func
        except ImportError as error:  # not there, or built for another torch
            if wish == "flash_attn":
                raise OptionError(
                    f"{VARIABLE} asks for flash_attn, which cannot be imported ({error}); unset it"
                    " or install flash-attn for this torch"
                ) from error
        else:

            def ragged(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int) -> Tensor:
                return flash_attn_varlen_func(q, k, v, starts, starts, longest, longest)

            return GpuAttention("flash_attn", flash_attn_func, ragged)
    return GpuAttention("sdpa", None, _torch_varlen())


def _torch_varlen() -> Ragged | None:
    """torch.nn.attention.varlen, where it is there for CUDA."""
    if torch.version.hip or not torch.backends.cuda.is_flash_attention_available():
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    return lambda q, k, v, starts, longest: varlen_attn(q, k, v, starts, starts, longest, longest)


def attend_ragged_plain(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int) -> Tensor:
    """The plain twin of a ragged form, on any device: one group after the other."""
    from onelook.nn.attention import attention_plain

    assert longest == int(starts.diff().max())
    parts = zip(*(t.split(starts.diff().tolist()) for t in (q, k, v)), strict=True)
    return torch.cat([attention_plain(q[None], k[None], v[None])[0] for q, k, v in parts])
