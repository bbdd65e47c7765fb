"""All that residency asks of a device, in one small interface, and the two devices there are.

A GPU has a compute stream (the caller's current one) and a copy stream of ours. Device memory is
always taken from the compute stream's pool; a copy into it first waits for what that stream had
been given until then, and the compute stream waits for the copy. So memory may be handed back at
any time without waiting for the device, and nothing needs `record_stream`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

Event = Any  # a point in a stream's work; only the device that made it looks inside

# Of the host's memory, at most this share is pinned; the rest is copied unpinned. Pinned memory
# cannot be swapped out, and a host without any left stops. Our choice.
PINNED_SHARE = 0.5
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SHORTAGE = ("out of memory", "_STATUS_ALLOC_FAILED", "Failed to allocate")  # torch, cuBLAS, warp


class Device(Protocol):
    """Where networks compute. `is_host`: the host's own tensors are used, nothing else is called.

    memory() -> (free, total) bytes, free including what torch keeps cached. allocate, pin -> (N,)
    uint8 tensors; pin gives None where the host cannot pin so much. copy runs on the copy stream.
    record_* mark a point in a stream, *_waits make a stream wait for such a point without the host
    waiting; seconds_between needs both points passed. synchronize waits for the compute stream,
    free_cache for everything. start(job) runs it beside the caller, in the order of the calls.
    """

    torch_device: torch.device
    is_host: bool

    def memory(self) -> tuple[int, int]: ...
    def allocate(self, size: int) -> Tensor: ...
    def pin(self, size: int) -> Tensor | None: ...
    def copy(self, target: Tensor, source: Tensor) -> None: ...
    def record_compute(self) -> Event: ...
    def record_copy(self) -> Event: ...
    def compute_waits(self, event: Event) -> None: ...
    def copy_waits(self, event: Event) -> None: ...
    def seconds_between(self, first: Event, last: Event) -> float: ...
    def synchronize(self) -> None: ...
    def free_cache(self) -> None: ...
    def reset_peak(self) -> None: ...
    def peak_bytes(self) -> int: ...
    def allocated_bytes(self) -> int: ...
    def start(self, job: Callable[[], Any]) -> Future: ...


def open_device(name: str = "auto") -> Device:
    """ "cpu", "cuda" or "cuda:N"; "auto" takes the first GPU torch sees, else the CPU."""
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu":
        return HostDevice()
    if device.type == "cuda":
        return CudaDevice(device.index or 0)
    raise ValueError(f"device must be auto, cpu or cuda:N, got {name!r}")


class HostDevice:
    """The CPU: networks compute where they lie."""

    torch_device = torch.device("cpu")
    is_host = True


class CudaDevice:
    """A GPU of NVIDIA or AMD, through torch.cuda."""

    is_host = False

    def __init__(self, index: int = 0):
        self.torch_device = torch.device("cuda", index)
        self._copy_stream = torch.cuda.Stream(self.torch_device)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="residency")
        self._pinnable = int(PINNED_SHARE * host_memory_bytes())

    def memory(self) -> tuple[int, int]:
        free, total = torch.cuda.mem_get_info(self.torch_device)
        cached = torch.cuda.memory_reserved(self.torch_device)
        cached -= torch.cuda.memory_allocated(self.torch_device)
        return free + cached, total

    def allocate(self, size: int) -> Tensor:
        with torch.inference_mode(False):  # the copy may outlive the caller's inference mode
            return torch.empty(size, dtype=torch.uint8, device=self.torch_device)

    def pin(self, size: int) -> Tensor | None:
        if size > self._pinnable:
            return None
        try:
            with torch.inference_mode(False):
                pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # a limit of the system or the container
            return None
        self._pinnable -= size
        return pinned

    def copy(self, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(self._copy_stream), torch.no_grad():
            target.copy_(source, non_blocking=source.is_pinned())

    def record_compute(self) -> Event:
        return self._record(torch.cuda.current_stream(self.torch_device))

    def record_copy(self) -> Event:
        return self._record(self._copy_stream)

    def _record(self, stream: torch.cuda.Stream) -> Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(stream)
        return event

    def compute_waits(self, event: Event) -> None:
        torch.cuda.current_stream(self.torch_device).wait_event(event)

    def copy_waits(self, event: Event) -> None:
        self._copy_stream.wait_event(event)

    def seconds_between(self, first: Event, last: Event) -> float:
        return first.elapsed_time(last) / 1000

    def synchronize(self) -> None:
        """Wait for the compute stream only: the next stage's copy runs on."""
        torch.cuda.current_stream(self.torch_device).synchronize()

    def free_cache(self) -> None:
        self._worker.submit(lambda: None).result()  # no copy is about to begin
        torch.cuda.synchronize(self.torch_device)
        torch.cuda.empty_cache()

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.torch_device)

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.torch_device)

    def allocated_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.torch_device)

    def start(self, job: Callable[[], Any]) -> Future:
        return self._worker.submit(job)


def requested_bytes(error: BaseException) -> int | None:
    """None unless `error` says that device memory ran out; else what was asked for, 0 if unsaid."""
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and not (
        isinstance(error, RuntimeError) and any(word in text for word in _SHORTAGE)
    ):
        return None
    asked = re.search(r"Tried to allocate ([\d.]+) (\w+)", text)
    if asked and asked[2] in _UNITS:
        return int(float(asked[1]) * _UNITS[asked[2]])
    return 0


def host_memory_bytes() -> int:
    """Memory of the machine, or what its container may use of it where that is less."""
    if not hasattr(os, "sysconf"):  # Windows: pinning is limited by the driver
        return 2**62
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup version 2, version 1
        try:
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)
