"""How near a network comes to what the machine can do: its arithmetic over a bare product's rate.

Only products of matrices count as arithmetic (torch's own count: linear layers, convolutions,
attention); everything else a network does is what keeps it from the ceiling.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

_ROWS, _INNER, _COLUMNS = 3072, 1024, 4096  # of the bare product: a transformer's largest


@dataclass(frozen=True)
class Ceiling:
    """seconds of the best run; teraflops: 10^12 operations counted; ratio: of the bare rate."""

    seconds: float
    teraflops: float
    ratio: float


def measure_ceiling(network: Callable[[], object], runs: int = 2) -> Ceiling:
    """Run the network and bare products in turn, so that both meet the same machine."""
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={on_cpu: _attention_flop})
    with torch.inference_mode(), counter:
        network()
    work = counter.get_total_flops()
    rates, times = [bare_rate()], []
    with torch.inference_mode():
        for _ in range(runs):
            start = time.perf_counter()
            network()
            times.append(time.perf_counter() - start)
            rates.append(bare_rate())
    return Ceiling(min(times), work / 1e12, work / min(times) / max(rates))


def _attention_flop(q, k, v, *_, **__) -> int:
    batch, heads, queries, width = q
    return 4 * batch * heads * queries * k[2] * width


def bare_rate(seconds: float = 1.5) -> float:
    """Operations a second of one large float32 product, the best of those made in `seconds`."""
    a, b = torch.randn(_ROWS, _INNER), torch.randn(_INNER, _COLUMNS)
    out = torch.empty(_ROWS, _COLUMNS)
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * _ROWS * _INNER * _COLUMNS / best
