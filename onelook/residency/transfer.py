"""Copies from the host to the device that run beside the computing, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from onelook.residency.device import Device, Event
from onelook.residency.image import Image


@dataclass
class Ledger:
    """Figures of one stage of a prediction."""

    seconds: float = 0.0
    moved_bytes: int = 0
    copy_seconds: float = 0.0  # the copy stream was busy
    wait_seconds: float = 0.0  # the compute stream waited for it
    peak_bytes: int = 0
    _open: list[tuple[Event, Event, Event, Event]] = field(default_factory=list)

    def arrived(self, transfer: Transfer, waited: tuple[Event, Event]) -> None:
        """Note a transfer that the stage has begun to use."""
        self.moved_bytes += transfer.bytes
        self._open.append((*transfer.span, *waited))

    def settle(self, device: Device) -> None:
        """Turn the noted events into seconds; the compute stream must have come this far."""
        for first, last, before, after in self._open:
            self.copy_seconds += device.seconds_between(first, last)
            self.wait_seconds += device.seconds_between(before, after)
        self._open.clear()


class Transfer:
    """Images on their way into buffers on the device; begins when made."""

    def __init__(
        self,
        device: Device,
        images: Sequence[Image],
        buffers: Sequence[Tensor],
        free: Event,
        pin: bool,
    ):
        """buffers: (N,) uint8 per image. free: when the compute stream is done with them."""
        self.bytes = sum(image.size for image in images)
        self.span: tuple[Event, Event]
        self._device = device
        pairs = list(zip(images, buffers, strict=True))

        def send() -> tuple[Event, Event]:
            device.copy_waits(free)
            begun = device.record_copy()
            for image, buffer in pairs:
                image.send(device, buffer, pin)
            return begun, device.record_copy()

        if all(image.is_pinned for image in images):  # only enqueues: no need of another thread
            self._job: Future = Future()
            self._job.set_result(send())
        else:
            self._job = device.start(send)

    def arrive(self, ledger: Ledger) -> None:
        """Let the compute stream go on only when the bytes are there."""
        before = self._device.record_compute()
        self.span = self._job.result()
        self._device.compute_waits(self.span[1])
        ledger.arrived(self, (before, self._device.record_compute()))

    def abandon(self) -> None:
        """Make the buffers safe to be given back, without using what they got."""
        if self._job.exception() is None:
            self._device.compute_waits(self._job.result()[1])
