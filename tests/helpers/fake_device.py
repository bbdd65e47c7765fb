"""A device without a GPU that punishes every mistake a GPU would only sometimes punish.

Its memory is host memory of its own, counted, and full of NaN bytes when allocated. A copy happens
as late as its stream allows: not before the compute stream waits for it. So a forgotten wait gives
NaN, a copy into memory that was handed back fails, and what was never dropped is still counted.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FakeEvent:
    """A point in a stream: how many entries of the log, and how many copies, came before it."""

    stream: str
    log_length: int
    copies: int
    seconds: float


@dataclass
class _Pending:
    memory: weakref.ref
    start: int
    source: Tensor


class FakeDevice:
    """Implements `onelook.residency.device.Device`; `log` holds what was asked of it, in order."""

    is_host = False
    torch_device = torch.device("cpu")

    def __init__(
        self, capacity: int, pinnable: int = 2**40, threaded: bool = False, bandwidth: float = 1e9
    ):
        self.capacity = capacity
        self.held = 0
        self.peak = 0
        self.pinned = 0
        self.log: list[tuple] = []
        self._pinnable = pinnable
        self._bandwidth = bandwidth
        self._copied = 0
        self._pending: list[_Pending] = []
        self._done = 0  # copies that have happened
        self._buffers: dict[int, weakref.ref] = {}  # address -> memory
        self._lock = threading.RLock()
        self._worker = ThreadPoolExecutor(1) if threaded else None

    # What residency asks

    def memory(self) -> tuple[int, int]:
        return self.capacity - self.held, self.capacity

    def allocate(self, size: int) -> Tensor:
        with self._lock:
            if self.held + size > self.capacity:
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {size / 2**20:.4f} MiB."
                )
            memory = np.full(max(size, 1), 0xFF, np.uint8)
            buffer = torch.from_numpy(memory)[:size]  # holds `memory` as long as any view lives
            address = memory.ctypes.data
            self._buffers[address] = weakref.ref(memory)
            weakref.finalize(memory, self._freed, address, size)
            self.held += size
            self.peak = max(self.peak, self.held)
            self.log.append(("allocate", address, size))
            return buffer

    def _freed(self, address: int, size: int) -> None:
        self.held -= size
        self.log.append(("free", address, size))

    def pin(self, size: int) -> Tensor | None:
        if self.pinned + size > self._pinnable:
            return None
        self.pinned += size
        self.log.append(("pin", size))
        return torch.empty(size, dtype=torch.uint8)

    def copy(self, target: Tensor, source: Tensor) -> None:
        assert target.dtype == source.dtype == torch.uint8
        assert target.shape == source.shape
        with self._lock:
            address, memory = self._memory_of(target)
            self._pending.append(_Pending(weakref.ref(memory), target.data_ptr() - address, source))
            self._copied += len(source)
            self.log.append(("copy", address, len(source)))

    def record_compute(self) -> FakeEvent:
        with self._lock:
            self.log.append(("record_compute",))
            return FakeEvent("compute", len(self.log), 0, 0.0)

    def record_copy(self) -> FakeEvent:
        with self._lock:
            copies = self._done + len(self._pending)
            return FakeEvent("copy", len(self.log), copies, self._copied / self._bandwidth)

    def compute_waits(self, event: FakeEvent) -> None:
        assert event.stream == "copy"
        with self._lock:
            self.log.append(("compute_waits", event.copies))
            self._run_copies(event.copies)

    def copy_waits(self, event: FakeEvent) -> None:
        assert event.stream == "compute"
        self.log.append(("copy_waits", event.log_length))

    def seconds_between(self, first: FakeEvent, last: FakeEvent) -> float:
        assert first.stream == last.stream
        assert last.copies <= self._done, "an event that has not been passed"
        return last.seconds - first.seconds

    def synchronize(self) -> None:
        self.log.append(("synchronize",))

    def free_cache(self) -> None:
        self.start(lambda: None).result()
        with self._lock:
            self._run_copies(self._done + len(self._pending))

    def reset_peak(self) -> None:
        self.peak = self.held

    def peak_bytes(self) -> int:
        return self.peak

    def allocated_bytes(self) -> int:
        return self.held

    def start(self, job: Callable[[], Any]) -> Future:
        if self._worker:
            return self._worker.submit(job)
        future: Future = Future()
        try:
            future.set_result(job())
        except RuntimeError as error:
            future.set_exception(error)
        return future

    # What tests ask

    def watch(self, module: nn.Module) -> None:
        """Log every use of a tensor by `module`, and fail where it is not in this memory."""
        for part in module.modules():
            if not isinstance(part, nn.ModuleList):
                part.register_forward_hook(lambda part, *_: self._used(part))

    def _used(self, part: nn.Module) -> None:
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers("", False)):
            address, _ = self._memory_of(tensor)
            assert address, f"{type(part).__name__}.{name} was used at home"
            self.log.append(("use", address))

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor lies in this device's memory."""
        return self._memory_of(tensor)[0] != 0

    @property
    def moved(self) -> int:
        """Bytes of all copies so far."""
        return self._copied

    def names(self, *kinds: str) -> list[str]:
        """The log's entries of these kinds, by kind, and what the test wrote into it."""
        return [entry[0] for entry in self.log if entry[0] in kinds]

    def check(self) -> None:
        """Every copy has happened, and none could have overtaken a use of the memory it wrote."""
        assert not self._pending
        last: dict[int, int] = {}  # address -> place in the log where it was last taken or used
        waited = 0  # the copy stream is behind this place of the log
        for place, entry in enumerate(self.log):
            if entry[0] in ("allocate", "use"):
                last[entry[1]] = place
            elif entry[0] == "copy_waits":
                waited = max(waited, entry[1])
            elif entry[0] == "copy":
                assert waited > last[entry[1]], f"copy {place} may overtake {last[entry[1]]}"

    def _run_copies(self, until: int) -> None:
        while self._done < until:
            pending = self._pending.pop(0)
            memory = pending.memory()
            assert memory is not None, "a copy into memory that was handed back"
            memory[pending.start : pending.start + len(pending.source)] = pending.source.numpy()
            self._done += 1

    def _memory_of(self, tensor: Tensor) -> tuple[int, np.ndarray]:
        for address, reference in list(self._buffers.items()):
            memory = reference()
            if memory is None:
                if self._buffers.get(address) is reference:
                    del self._buffers[address]
            elif address <= tensor.data_ptr() < address + max(len(memory), 1):
                return address, memory
        return 0, np.empty(0, np.uint8)
