"""The tensors of a safetensors file, mapped: not one byte of them is read on opening.

The safetensors package checks the file and maps it, but its `get_tensor` touches the first page of
every tensor, and with each the kernel reads megabytes ahead: a checkpoint of 16 GB would be read
almost whole before it is used (measured with safetensors 0.8 and torch 2.13: 1.6 GB of a file of
2 GB with 100 tensors). So the package does the checking, and views of one mapping are made here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage

# Name in a safetensors header -> name in torch, of the types whose elements fill whole bytes.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def map_tensors(path: Path, kept: Callable[[str], str | None]) -> dict[str, Tensor]:
    """Views of the mapped file. kept: key in the file -> key in the result, None to leave it out.

    The mapping is private: writing to a tensor changes no file. It lasts as long as a tensor of it.
    Raises SafetensorError when the file is damaged or not whole, OSError when it cannot be read.
    """
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:  # checks header, offsets and size
        header, start = _read_header(path)
        storage = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
        tensors = {}
        for key in file.keys():  # noqa: SIM118 (it is no dict)
            if (new := kept(key)) is None:
                continue
            mapped = header[key]["dtype"] in _TYPES
            tensors[new] = _view(storage, start, header[key]) if mapped else file.get_tensor(key)
    return tensors


def _read_header(path: Path) -> tuple[dict, int]:
    """The header, and where the tensors' bytes begin: after its length in 8 bytes and its text."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _view(storage: UntypedStorage, start: int, entry: dict) -> Tensor:
    """A tensor on its own slice of the storage, so that any offset will do."""
    import torch

    first, end = entry["data_offsets"]
    empty = torch.empty(0, dtype=getattr(torch, _TYPES[entry["dtype"]]))
    return empty.set_(storage[start + first : start + end], 0, entry["shape"])
