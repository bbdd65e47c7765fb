"""Mapping a safetensors file: the tensors the package gives, and not a page of them read."""

import ctypes
import json
import mmap
import os
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from onelook.weights.mapping import map_tensors  # noqa: E402
from onelook.weights.opening import build_empty  # noqa: E402

TYPES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 complex64"
    " int64 int32 int16 int8 uint8 bool"
)


def write(path: Path, header: dict, content: bytes, padding: int = 0) -> None:
    text = json.dumps(header).encode() + b" " * padding
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def test_every_type_and_shape_is_what_was_stored(tmp_path):
    torch.manual_seed(3)
    numbers = torch.randint(0, 2, (3, 5))
    stored = {name: numbers.to(getattr(torch, name)) for name in TYPES.split()}
    stored |= {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 4)}
    safetensors_torch.save_file(stored, tmp_path / "all.safetensors")
    got = map_tensors(tmp_path / "all.safetensors", lambda key: key)
    assert got.keys() == stored.keys()
    for key, tensor in got.items():
        assert (tensor.dtype, tensor.shape) == (stored[key].dtype, stored[key].shape)
        same = tensor.contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(same, stored[key].reshape(-1).view(torch.uint8)), key


@pytest.mark.parametrize("padding", range(8))
def test_tensors_may_begin_at_any_byte(tmp_path, padding):
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [1, 17]}
    header = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "b": entry}
    wanted = torch.tensor([[1.0, -2.0], [3.5, 1e-9]])
    path = tmp_path / "odd.safetensors"
    write(path, header, b"\x07" + wanted.numpy().tobytes(), padding)
    got = map_tensors(path, {"b": "renamed"}.get)
    assert list(got) == ["renamed"] and torch.equal(got["renamed"], wanted)


def test_writing_to_a_tensor_leaves_the_file(tmp_path):
    path = tmp_path / "one.safetensors"
    safetensors_torch.save_file({"a": torch.ones(4)}, path)
    before = path.read_bytes()
    map_tensors(path, str)["a"].zero_()
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is cached")
def test_no_page_is_read_before_it_is_used(tmp_path):
    size, count = 4_000_000, 20
    path = tmp_path / "hollow.safetensors"
    header = {
        f"t{i}": {"dtype": "F16", "shape": [size // 2], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(count)
    }
    write(path, header, b"")
    os.truncate(path, path.stat().st_size + size * count)
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    first_byte = ctypes.c_char.from_buffer(view)

    def cached_bytes() -> int:
        pages = ctypes.create_string_buffer(-(-len(view) // mmap.PAGESIZE))
        length = ctypes.c_size_t(len(view))
        assert ctypes.CDLL(None).mincore(ctypes.byref(first_byte), length, pages) == 0
        return sum(page & 1 for page in pages.raw) * mmap.PAGESIZE

    tensors = map_tensors(path, str)
    assert cached_bytes() < 100_000  # the header
    assert tensors["t9"][size // 4] == 0
    assert cached_bytes() > 0


def test_an_empty_network_has_no_memory_and_no_numbers():
    before = torch.random.get_rng_state()
    network = build_empty(
        lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Conv3d(1, 2, 3))
    )
    assert all(value.is_meta for value in network.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)
