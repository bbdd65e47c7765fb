"""One way to run warp kernels: on the CPU with every core, on CUDA as they are.

Warp compiles the same kernel source for both. A CPU launch uses one thread, but it releases
Python's lock, so `launch` cuts the range into pieces and runs them side by side. For that every
kernel of the project takes `first: int` as its first argument and works on item `first + wp.tid()`.
Two items must never write the same memory: there are no atomics between CPU threads.
"""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import warp as wp

from onelook.errors import OptionError
from onelook.time_cap import require_time


def _start_warp() -> None:
    """Initialise warp without its banner and without its native warning that there is no GPU."""
    wp.config.log_level = wp.LOG_ERROR  # errors still raise
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            wp.init()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


_start_warp()

Array = np.ndarray


def thread_count() -> int:
    """How many CPU threads a launch may use: the cores this process is allowed to run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_count(), thread_name_prefix="kernel")


def default_device() -> str:
    """`cuda:0` where warp sees a GPU, else `cpu`."""
    return "cuda:0" if wp.is_cuda_available() else "cpu"


def resolve_device(device: str) -> str:
    """`auto` -> the default device; `cpu`, `cuda` and `cuda:N` -> themselves where they exist.

    Raises OptionError for any other name and for a GPU that is not there.
    """
    if device == "auto":
        return default_device()
    if device == "cpu":
        return device
    if re.fullmatch(r"cuda(:\d+)?", device):
        number, count = int(device.partition(":")[2] or 0), wp.get_cuda_device_count()
        if number < count:
            return f"cuda:{number}"
        raise OptionError(f"device {device} is not on this machine, which has {count} CUDA devices")
    raise OptionError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")


def device_memory_bytes(device: str) -> int:
    """Memory of this GPU; 0 for "cpu"."""
    return wp.get_device(device).total_memory if device.startswith("cuda") else 0


def launch(kernel: Any, count: int, inputs: list[Any], device: str, pieces: int | None = None):
    """Run `kernel` for items 0..count-1; `inputs` follow the kernel's `first` argument.

    On the CPU the range is cut into `pieces` (default: four per thread, so that uneven work
    balances out); on CUDA it is one launch. Returns when the CPU work is done. Raises
    TimeCapReached where a cap around the caller is over.
    """
    require_time()
    if count == 0:
        return
    wp.load_module(kernel.module, device=device)  # compile or read the cache once, not per thread
    if not device.startswith("cpu"):
        wp.launch(kernel, dim=count, inputs=[0, *inputs], device=device)
        return
    pieces = min(count, pieces or 4 * thread_count())
    bounds = np.linspace(0, count, pieces + 1).astype(int).tolist()

    def run(first: int, last: int) -> None:
        wp.launch(kernel, dim=last - first, inputs=[first, *inputs], device=device)

    for job in [_pool().submit(run, a, b) for a, b in zip(bounds, bounds[1:], strict=False)]:
        job.result()
        require_time()
