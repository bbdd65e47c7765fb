"""Key lists of official checkpoints, and the proof that a class of ours has exactly those keys.

A key list is a json file with `tensors` (key -> shape), `class`, `config`, and sometimes `buffers`
(keys of `tensors` that are buffers, not parameters).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COUNT_NAMES = ("n_parameters", "num_parameters")


@dataclass(frozen=True)
class KeyList:
    """What a checkpoint holds. parameter_count: as its maker counted, None where not stated."""

    name: str
    class_name: str
    config: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    buffers: frozenset[str]
    parameter_count: int | None


def load_key_list(path: Path) -> KeyList:
    """Read one key list. Raises ValueError when the file is something else."""
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content.get("tensors"), dict):
        raise ValueError(f"{path.name} has no tensors: it is no key list")
    return KeyList(
        path.stem,
        content["class"],
        content["config"],
        {key: tuple(shape) for key, shape in content["tensors"].items()},
        frozenset(content.get("buffers", ())),
        next((content[key] for key in _COUNT_NAMES if key in content), None),
    )


def assert_has_keys(build: Callable[[], Any], wanted: KeyList) -> None:
    """Build a network on the meta device: its state dict must have exactly these keys and shapes,
    and the listed buffers must be buffers."""
    import torch

    with torch.device("meta"):
        model = build()
    got = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    differences = key_differences(got, wanted.tensors)
    assert not differences, f"{wanted.name}: {'; '.join(differences)}"
    buffers = got.keys() - dict(model.named_parameters()).keys()
    assert buffers == wanted.buffers, f"{wanted.name}: buffers {buffers} != {wanted.buffers}"
    if wanted.parameter_count is not None:
        count = sum(value.numel() for value in model.parameters())
        wants = wanted.parameter_count
        assert count == wants, f"{wanted.name}: {count} parameters, not {wants}"


def key_differences(
    got: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> list[str]:
    """One sentence for each kind of difference; empty when keys and shapes are equal."""
    missing = sorted(wanted.keys() - got.keys())
    unexpected = sorted(got.keys() - wanted.keys())
    reshaped = [key for key in wanted if key in got and got[key] != wanted[key]]
    differences = []
    if missing:
        differences.append(f"{len(missing)} missing, first {missing[:3]}")
    if unexpected:
        differences.append(f"{len(unexpected)} unexpected, first {unexpected[:3]}")
    if reshaped:
        key = reshaped[0]
        differences.append(f"{len(reshaped)} reshaped: {key} {got[key]}, wanted {wanted[key]}")
    return differences
