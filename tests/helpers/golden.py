"""Recorded cases of the original implementations, and weights that follow from their names."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Case:
    """One recorded case: info is its JSON (config, weights_seed, tolerances), arrays its NPZ."""

    info: dict
    arrays: dict[str, np.ndarray]


def read_case(name: str, root: Path = GOLDEN) -> Case:
    """`read_case("triposr/isosurface")` -> the case's description and arrays."""
    info = json.loads((root / f"{name}.json").read_text())
    with np.load(root / f"{name}.npz") as stored:
        return Case(info, dict(stored))


def seed_weights(module, seed: int, prefix: str = ""):
    """Fill every parameter of a torch module by its name; returns the module.

    `prefix` goes before each name: where the module sits in the official checkpoint. Matrices have
    rows of about unit length, scales lie near 1, everything else is small.
    """
    import torch

    for name, parameter in module.named_parameters():
        key = f"{seed}:{prefix}{name}".encode()
        draw = np.random.RandomState(zlib.crc32(key) & 0xFFFFFFFF).standard_normal(parameter.shape)
        if parameter.ndim >= 2:
            value = draw / math.sqrt(math.prod(parameter.shape[1:]))
        elif name.endswith(("weight", "gamma")):
            value = 1 + 0.1 * draw
        else:
            value = 0.1 * draw
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.asarray(value, np.float32)))
    return module
