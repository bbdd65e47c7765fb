"""Tensors of a module packed into one run of bytes, so that a module travels as one piece.

On the host the tensors stay what they were opened as, mapped files included: they are never
changed. An image of them, in the device's types, is written once into pinned memory; each visit to
the device is then a few large copies instead of one per tensor, into one allocation. There the
modules get views of it in place of their own tensors, and coming home is putting those back.

N bytes of an image.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from onelook.residency.device import Device

ALIGNMENT = 256  # bytes; what cudaMalloc itself promises, so no kernel finds less than it expects
# torch rounds a pinned allocation up to a power of two: pieces of such sizes waste nothing.
LARGEST_PIECE = 64 * 2**20
SMALLEST_PIECE = 2**20

Cast = Mapping[torch.dtype, torch.dtype]


@dataclass
class Entry:
    """One tensor of an image, and every place in the modules that refers to it."""

    host: Tensor
    dtype: torch.dtype
    offset: int
    places: list[tuple[dict, str]]  # (a module's _parameters or _buffers, name)

    @property
    def size(self) -> int:
        return self.host.numel() * self.dtype.itemsize


@dataclass
class Visit:
    """An image's tensors as views of one buffer on the device."""

    buffer: Tensor
    tensors: list[Tensor] = field(default_factory=list)


class Image:
    """The tensors of some modules, as bytes. `size` is a multiple of ALIGNMENT."""

    def __init__(
        self,
        tensors: Iterable[tuple[Tensor, list[tuple[dict, str]]]],
        cast: Cast,
        exact: Container[int] = (),
    ):
        """tensors: each with the places that refer to it; cast: stored dtype -> device's dtype;
        exact: `id` of tensors that are float32 on the device."""
        self.entries: list[Entry] = []
        self.size = 0
        for tensor, places in tensors:
            stored = tensor.dtype
            dtype = torch.float32 if id(tensor) in exact else cast.get(stored, stored)
            entry = Entry(tensor, dtype, self.size, places)
            self.entries.append(entry)
            self.size += -(-entry.size // ALIGNMENT) * ALIGNMENT
        self._pieces: list[Tensor] | None = None
        self._can_pin = True

    @property
    def is_pinned(self) -> bool:
        return self._pieces is not None

    def send(self, device: Device, buffer: Tensor, pin: bool) -> None:
        """Copy the image to the start of `buffer`, through pinned memory if `pin` and possible.

        The first pinned visit writes the image piece by piece, each on its way as soon as it is
        complete.
        """
        buffer = buffer[: self.size]  # a place for blocks is as large as the largest
        if self._pieces is not None:
            for piece, start in _with_starts(self._pieces):
                part = buffer[start : start + len(piece)]
                device.copy(part, piece[: len(part)])
        elif pin and self._can_pin and self._pin_and_send(device, buffer):
            return
        else:
            for entry in self.entries:
                part = buffer[entry.offset : entry.offset + entry.size]
                if len(part):
                    device.copy(part, _bytes_of(entry))

    def _pin_and_send(self, device: Device, buffer: Tensor) -> bool:
        pieces = []
        writer = _Writer(self.entries)
        for length, start in _with_starts_of(piece_lengths(self.size)):
            piece = device.pin(length)
            if piece is None:
                self._can_pin = False
                return False
            part = buffer[start : start + length]
            writer.fill(piece[: len(part)])
            device.copy(part, piece[: len(part)])
            pieces.append(piece)
        self._pieces = pieces
        return True

    def visit(self, buffer: Tensor) -> Visit:
        """Views of `buffer` (N,), one per tensor, ready to be put into the modules."""
        with torch.inference_mode(False), torch.no_grad():
            return Visit(buffer, [_view(entry, buffer) for entry in self.entries])

    def hang(self, visit: Visit) -> None:
        """Give the modules the device's tensors."""
        for entry, tensor in zip(self.entries, visit.tensors, strict=True):
            for members, name in entry.places:
                members[name] = tensor

    def come_home(self) -> None:
        """Give the modules their own tensors back."""
        for entry in self.entries:
            for members, name in entry.places:
                members[name] = entry.host

    def cast_at_home(self) -> None:
        """Convert the modules' own tensors: for a device that uses them as they lie."""
        for entry in self.entries:
            if entry.host.dtype != entry.dtype:
                with torch.inference_mode(False), torch.no_grad():
                    made = entry.host.detach().to(entry.dtype)
                entry.host = _like(entry.host, made)
        self.come_home()


class _Writer:
    """Writes the image from its start, as many bytes at a time as asked for."""

    def __init__(self, entries: list[Entry]):
        self._runs = self._all_runs(entries)
        self._run = torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def _all_runs(entries: list[Entry]) -> Iterator[Tensor]:
        for entry in entries:
            yield _bytes_of(entry)
            yield torch.zeros(-entry.size % ALIGNMENT, dtype=torch.uint8)

    def fill(self, target: Tensor) -> None:
        done = 0
        while done < len(target):
            while not len(self._run):
                self._run = next(self._runs)
            step = min(len(target) - done, len(self._run))
            target[done : done + step].copy_(self._run[:step])
            self._run = self._run[step:]
            done += step


def piece_lengths(size: int) -> list[int]:
    """Powers of two that together hold `size` bytes with less than SMALLEST_PIECE to spare."""
    lengths = [LARGEST_PIECE] * (size // LARGEST_PIECE)
    left = size % LARGEST_PIECE
    length = LARGEST_PIECE // 2
    while left > 0:
        if left >= length or length == SMALLEST_PIECE:
            lengths.append(length)
            left -= length
        if length > SMALLEST_PIECE:
            length //= 2
    return lengths


def _with_starts(pieces: list[Tensor]) -> Iterator[tuple[Tensor, int]]:
    return zip(pieces, (start for _, start in _with_starts_of(map(len, pieces))), strict=True)


def _with_starts_of(lengths: Iterable[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for length in lengths:
        yield length, start
        start += length


def _bytes_of(entry: Entry) -> Tensor:
    """(size,) uint8: the tensor in the device's type, in row-major order."""
    with torch.no_grad():
        return entry.host.detach().to(entry.dtype).reshape(-1).view(torch.uint8)


def _view(entry: Entry, buffer: Tensor) -> Tensor:
    run = buffer[entry.offset : entry.offset + entry.size]
    return _like(entry.host, run.view(entry.dtype).view(entry.host.shape))


def _like(host: Tensor, tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor, requires_grad=False) if isinstance(host, nn.Parameter) else tensor
