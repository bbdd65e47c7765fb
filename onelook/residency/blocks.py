"""Run a network that does not fit: two places on the device serve all its blocks in turn.

While a block computes in one place, the next is copied into the other; after the last comes the
first again, because a sampler calls its network many times. Blocks are expected in their declared
order; another order costs waiting, nothing else.

`diffusers.hooks.apply_group_offloading` does a similar thing and was read for comparison. It makes
the host wait for the copy stream at every block, pins everything tensor by tensor when it is
applied, allocates anew for every visit, and would be this project's only use of diffusers.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from onelook.residency.device import Device, Event
from onelook.residency.image import Image, Visit
from onelook.residency.transfer import Ledger, Transfer


class _Place:
    """Room for one block on the device."""

    def __init__(self, buffer: Tensor, free: Event):
        self.buffer = buffer
        self.free = free  # the compute stream is done with the block that was here
        self.block: int | None = None
        self.transfer: Transfer | None = None  # on its way; None: there
        self.visits: dict[int, Visit] = {}  # views of the buffer, made once per block


class BlockStream:
    """Brings each block in before it runs; from `start` to `stop`."""

    def __init__(self, device: Device, blocks: list[nn.Module], images: list[Image], pin: bool):
        self._device = device
        self._blocks = blocks
        self._images = images
        self._pin = pin
        self._places: list[_Place] = []
        self._running: _Place | None = None
        self._hooks: list = []
        self._ledger = Ledger()
        self._count: Callable[[int], None] = lambda size: None

    def start(self, ledger: Ledger, count: Callable[[int], None]) -> None:
        """Take the places and send for the first block. count: told the bytes of every copy."""
        self._ledger, self._count = ledger, count
        size = max(image.size for image in self._images)
        for _ in range(min(2, len(self._images))):
            buffer = self._device.allocate(size)
            self._places.append(_Place(buffer, self._device.record_compute()))
        for index, block in enumerate(self._blocks):
            self._hooks += [
                block.register_forward_pre_hook(lambda *_, index=index: self._before(index)),
                block.register_forward_hook(
                    lambda *_, index=index: self._after(index), always_call=True
                ),
            ]
        self._send_for(0)

    def stop(self) -> None:
        """Send every block home and give the places back."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for image in self._images:
            image.come_home()
        for place in self._places:
            if place.transfer:
                place.transfer.abandon()
        self._places.clear()
        self._running = None

    def _before(self, index: int) -> None:
        place = self._holding(index) or self._send_for(index)
        if place.transfer:
            place.transfer.arrive(self._ledger)
            place.transfer = None
        image = self._images[index]
        if index not in place.visits:
            place.visits[index] = image.visit(place.buffer)
        image.hang(place.visits[index])
        self._running = place
        following = (index + 1) % len(self._images)
        if self._holding(following) is None:
            self._send_for(following)

    def _after(self, index: int) -> None:
        self._images[index].come_home()
        if self._running:
            self._running.free = self._device.record_compute()
        self._running = None

    def _holding(self, index: int) -> _Place | None:
        return next((place for place in self._places if place.block == index), None)

    def _send_for(self, index: int) -> _Place:
        place = next(place for place in self._places if place is not self._running)
        if place.transfer:  # fetched in vain
            place.transfer.abandon()
        image = self._images[index]
        place.block = index
        place.transfer = Transfer(self._device, [image], [place.buffer], place.free, self._pin)
        self._count(image.size)
        return place
