"""Packing tensors into one run of bytes and back: nothing changes, nothing is lost."""

from __future__ import annotations

import pytest
import torch
from helpers.fake_device import FakeDevice
from torch import nn

from onelook.residency import image as image_module
from onelook.residency.image import ALIGNMENT, piece_lengths
from onelook.residency.networks import TO_FLOAT32, Network, pack

MIB = 2**20


class Odd(nn.Module):
    """Tensors of many types and shapes, some shared, some without a single element."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        for index, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16)):
            values = torch.randn(7, 5 + index, generator=draw).to(dtype)
            self.register_parameter(f"p{index}", nn.Parameter(values, requires_grad=index == 0))
        self.register_parameter("scalar", nn.Parameter(torch.tensor(3.5)))
        self.register_parameter("absent", None)
        self.tied = self.p0
        self.register_buffer("count", torch.tensor([1, -2, 3]))
        self.register_buffer("mask", torch.tensor([[True], [False]]))
        self.register_buffer("wave", torch.polar(torch.ones(9), torch.arange(9.0)))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T, persistent=False)


def _visit(module: nn.Module, cast=None, pinnable: int = 2**40):
    """(the module's image, its tensors on the device by name, the device)"""
    device = FakeDevice(2**30, pinnable)
    (image,) = pack({"odd": Network(module, cast or {})})["odd"].images
    buffer = device.allocate(image.size)
    image.send(device, buffer, pin=True)
    device.free_cache()
    image.hang(image.visit(buffer))
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    return image, tensors, device


@pytest.mark.parametrize("pinnable", [2**40, 0, 1536], ids=["pinned", "unpinned", "gives out"])
def test_every_tensor_arrives_bit_for_bit_and_comes_home_as_the_same_object(monkeypatch, pinnable):
    monkeypatch.setattr(image_module, "LARGEST_PIECE", 1024)  # tensors cross pieces
    monkeypatch.setattr(image_module, "SMALLEST_PIECE", 64)
    module = Odd()
    home = dict(module._parameters), dict(module._buffers)
    values = {name: t.clone() for name, t in module.state_dict(keep_vars=True).items()}
    image, tensors, device = _visit(module, pinnable=pinnable)
    assert image.is_pinned == (pinnable == 2**40)
    for name, tensor in tensors.items():
        assert device.holds(tensor) or not tensor.numel()
        if name in values:
            assert tensor.dtype == values[name].dtype
            assert torch.equal(tensor, values[name])
    assert torch.equal(module.turned, torch.arange(6.0).reshape(2, 3).T)
    assert module.tied is module.p0  # still one tensor, sent once
    assert not any(tensor.requires_grad for tensor in tensors.values())
    assert [type(tensor) for tensor in (module.p0, module.mask)] == [nn.Parameter, torch.Tensor]
    image.come_home()
    for before, after in zip(home, (module._parameters, module._buffers), strict=True):
        assert list(before) == list(after)
        assert all(before[name] is after[name] for name in before)


def test_a_pinned_image_is_written_once_and_sent_in_few_copies():
    module = nn.Sequential(*[nn.Linear(64, 64) for _ in range(20)])
    image, _, device = _visit(module)
    pins = device.names("pin")
    first = len(device.names("copy"))
    image.send(device, device.allocate(image.size), pin=True)
    assert device.names("pin") == pins
    assert first <= 1 and len(device.names("copy")) == 2 * first


def test_a_cast_changes_only_the_types_it_names_and_only_on_the_device():
    module = Odd()
    image, tensors, _ = _visit(module, cast={torch.float32: torch.float16})
    assert {n: t.dtype for n, t in tensors.items() if n in ("p0", "p1", "p2", "scalar")} == {
        "p0": torch.float16,
        "p1": torch.float16,
        "p2": torch.bfloat16,
        "scalar": torch.float16,
    }
    assert tensors["count"].dtype == torch.int64
    assert torch.equal(tensors["p0"], image.entries[0].host.half())
    image.come_home()
    assert module.p0.dtype == torch.float32
    widened, tensors, _ = _visit(Odd(), cast=TO_FLOAT32)
    assert {tensors[f"p{i}"].dtype for i in range(3)} == {torch.float32}
    assert widened.size % ALIGNMENT == 0


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 63 * MIB + 5, 64 * MIB, 2_610_000_000])
def test_pieces_are_powers_of_two_and_waste_under_a_mebibyte(size):
    lengths = piece_lengths(size)
    assert all(length & (length - 1) == 0 for length in lengths)
    assert lengths == sorted(lengths, reverse=True)
    assert 0 <= sum(lengths) - size < MIB
    assert len(lengths) <= size // (64 * MIB) + 7
