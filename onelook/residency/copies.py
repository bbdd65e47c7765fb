"""A network's copy on the device, from its first byte on the way to its leaving."""

from __future__ import annotations

from collections.abc import Callable

from onelook.residency.blocks import BlockStream
from onelook.residency.device import Device
from onelook.residency.networks import Packed
from onelook.residency.transfer import Ledger, Transfer


class NetworkCopy:
    """A network on the device: whole, or its first blocks and a stream for the others."""

    def __init__(self, device: Device, packed: Packed, leading: int | None, pin: bool):
        self._packed = packed
        split = len(packed.images) if leading is None else 1 + leading
        self._images = packed.images[:split]
        self._buffers = [device.allocate(image.size) for image in self._images]
        free = device.record_compute()
        self._transfer = Transfer(device, self._images, self._buffers, free, pin)
        self._has_arrived = False
        self._stream: BlockStream | None = None
        if leading is not None:
            rest = packed.blocks[leading:], packed.images[split:]
            self._stream = BlockStream(device, *rest, pin)
        self.bytes = self._transfer.bytes

    def arrive(self, ledger: Ledger, count: Callable[[int], None]) -> None:
        """Put the device's tensors into the network once they are there."""
        if self._has_arrived:
            return
        self._transfer.arrive(ledger)
        self._has_arrived = True
        for image, buffer in zip(self._images, self._buffers, strict=True):
            image.hang(image.visit(buffer))
        if self._stream:
            self._stream.start(ledger, count)

    def drop(self) -> None:
        """Send the network home and let go of its device memory."""
        if self._stream:
            self._stream.stop()
        if not self._has_arrived:
            self._transfer.abandon()
        self._packed.come_home()
        self._buffers.clear()
