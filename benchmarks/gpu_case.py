"""What `gpu.py` needs to know of a backend. Each has a module gpu_NAME.py with one `CASE`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One way to run a backend on an H100 or H200, and its targets.

    vram: gigabytes that networks may use, or "auto". surface_seconds: from the picture to the
    Surface; file_seconds: to all files; peak_gb: of torch, at most.
    """

    name: str
    vram: str | float = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    surface_seconds: float | None = None
    file_seconds: float | None = None
    peak_gb: float | None = None


@dataclass(frozen=True)
class Case:
    """How a backend is measured.

    write_weights, write_tiny: make random weights, of full size and tiny, in a folder; return the
    environment variables that name them. prepare(backend): replace the answers of networks that
    decide how much work follows, because random weights decide nonsense; every network still
    computes. tiny_options: what makes a run on a CPU quick.
    """

    model: str
    write_weights: Callable[[Path], Mapping[str, str]]
    write_tiny: Callable[[Path], Mapping[str, str]]
    prepare: Callable[[Any], None]
    runs: tuple[Run, ...]
    tiny_options: Mapping[str, Any]
