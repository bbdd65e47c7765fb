"""How near a network comes to what the machine can do.

That is: the time that its arithmetic alone would take at the machine's own rates, over its own.

Only products of matrices count as arithmetic (torch's own count: linear layers, convolutions,
attention); everything else a network does is what keeps it from the ceiling. There are two rates,
that of one linear layer and that of one attention, for a CPU does not reach the same in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from table import median_seconds
from torch.utils.flop_counter import FlopCounterMode

_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class Rates:
    """Operations per second: of a linear layer 4096 x 1024 -> 4096, and of attention over 16 heads
    of 4096 tokens of width 64."""

    linear: float
    attention: float


@dataclass(frozen=True)
class Ceiling:
    """seconds of the best run; teraflops: 10^12 operations; ratio: of the machine's rates."""

    seconds: float
    teraflops: float
    ratio: float


def measure_rates() -> Rates:
    """In float32, medians."""
    q, k, v = (torch.randn(1, 16, 4096, 64) for _ in range(3))
    attention = median_seconds(lambda: F.scaled_dot_product_attention(q, k, v), 5)
    linear = linear_seconds(torch.float32)
    return Rates(2 * 4096 * 1024 * 4096 / linear, 4 * 16 * 4096**2 * 64 / attention)


def linear_seconds(kind: torch.dtype) -> float:
    """Median of the linear layer of `Rates` in this type."""
    shapes = (4096, 1024), (4096, 1024), (4096,)
    x, weight, bias = (torch.randn(*shape).to(kind) for shape in shapes)
    return median_seconds(lambda: F.linear(x, weight, bias), 9)


def mean_rates(*measured: Rates) -> Rates:
    count = len(measured)
    return Rates(
        sum(one.linear for one in measured) / count, sum(one.attention for one in measured) / count
    )


@torch.inference_mode()
def measure_ceiling(network: Callable[[], object], runs: int = 2) -> Ceiling:
    """Run the network between measurements of the rates, so that both meet the same machine."""
    counter = FlopCounterMode(display=False, custom_mapping={_ON_CPU: _attention_flop})
    with counter:
        network()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(count for kind, count in counts.items() if "attention" in str(kind))
    total = sum(counts.values())
    best = Ceiling(float("inf"), total / 1e12, 0.0)
    before = measure_rates()
    for _ in range(runs):
        start = time.perf_counter()
        network()
        seconds = time.perf_counter() - start
        after = measure_rates()
        rates = mean_rates(before, after)
        least = (total - attention) / rates.linear + attention / rates.attention
        if seconds < best.seconds:
            best = Ceiling(seconds, total / 1e12, least / seconds)
        before = after
    return best


def _attention_flop(q, k, v, *_, **__) -> int:
    batch, heads, queries, width = q
    return 4 * batch * heads * queries * k[2] * width
