"""Pickled checkpoints (.ckpt, .bin, .pt, .pth): opened without running them, converted once.

A pickle can run any program when it is loaded. torch's `weights_only` reader refuses all but
tensors and plain containers. The tensors are written beside it as `<file>.safetensors`, which opens
by mapping; the pickle itself is left as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onelook.errors import WeightsError
from onelook.weights.files import free_bytes, settle
from onelook.weights.layouts import require_file
from onelook.weights.locate import PARTIAL_SUFFIX

if TYPE_CHECKING:
    from torch import Tensor

PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth")
_END_BYTES = 1 << 20
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # where trainers put the tensors


def as_safetensors(path: Path) -> Path | None:
    """The safetensors twin of a pickle: an earlier one if it is still of this file, else made now.

    Returns None where nothing can be written beside the pickle (read-only place, full disk).
    Raises WeightsError when the pickle is missing, damaged, or holds anything but tensors.
    """
    require_file(path)
    twin = path.with_name(path.name + ".safetensors")
    if _is_twin(twin, path):
        return twin
    if not os.access(path.parent, os.W_OK) or free_bytes(path.parent) < 1.1 * path.stat().st_size:
        return None
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = _separate(load_pickle(path))
    temporary = path.with_name(f"{twin.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        save_file(tensors, temporary, metadata=_origin(path))
        settle(temporary, twin)
    except (OSError, SafetensorError):
        return None
    finally:
        temporary.unlink(missing_ok=True)
    return twin


def load_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle by name, mapped where its format allows; never runs code in it.

    The dict may lie under `state_dict`, as Lightning writes it; everything that is no tensor is
    left out. Raises WeightsError when it is damaged or holds anything that would have to be run.
    """
    import pickle

    import torch

    try:
        content = _load(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path.name} is refused: it is damaged, or a pickle that holds more than tensors and"
            " could run a program when opened. Get it from its official place with: onelook weights"
            " pull, or ask its author for safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{path.name} is damaged or no checkpoint ({type(error).__name__}); mend it with:"
            " onelook weights pull"
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {
            key: value.detach()
            for key, value in content.items()
            if isinstance(key, str) and isinstance(value, torch.Tensor)
        }
    if not tensors:
        raise WeightsError(f"{path.name} holds no tensors by name: it is no checkpoint of a model")
    return tensors


def _load(path: Path):
    import zipfile

    import torch

    mapped = zipfile.is_zipfile(path)  # the older format cannot be mapped
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors each contiguous and in memory of its own, as safetensors wants them."""
    import torch

    seen: set[int] = set()
    separate = {}
    for key, value in tensors.items():
        storage = value.untyped_storage()
        whole = storage.nbytes() == value.numel() * value.element_size()
        if not value.is_contiguous() or not whole or storage.data_ptr() in seen:
            value = value.clone(memory_format=torch.contiguous_format)
        seen.add(value.untyped_storage().data_ptr())
        separate[key] = value
    return separate


def _origin(path: Path) -> dict[str, str]:
    """What tells this pickle from another: size, beginning and end, where a zip has its sums."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        ends = file.read(_END_BYTES)
        file.seek(max(size - _END_BYTES, 0))
        ends += file.read(_END_BYTES)
    return {"converted_from": f"{path.name} {size} {hashlib.sha256(ends).hexdigest()}"}


def _is_twin(twin: Path, path: Path) -> bool:
    """Whether `twin` was made from `path` as it is now."""
    if not twin.is_file():
        return False
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(twin, framework="pt") as file:
            return file.metadata() == _origin(path)
    except (SafetensorError, OSError):
        return False
