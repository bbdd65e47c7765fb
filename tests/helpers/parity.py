"""A recorded case as torch tensors, and the comparison with its own tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from helpers.golden import Case, seed_weights
from torch import Tensor


@dataclass(frozen=True)
class Parity:
    """A case whose arrays are tensors: `case["x"]`; config is its config."""

    case: Case

    @property
    def config(self) -> dict:
        return self.case.info["config"]

    @property
    def tolerance(self) -> dict[str, float]:
        """In a dict of its own, or beside everything else."""
        info = self.case.info
        return info.get("tolerance") or {name: info[name] for name in ("rtol", "atol")}

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.case.arrays[name])

    def seed(self, module: torch.nn.Module, prefix: str = "") -> torch.nn.Module:
        """The module with the case's weights, ready to run."""
        return seed_weights(module, self.case.info["weights_seed"], prefix).eval()

    def check(self, name: str, got: Tensor) -> None:
        """`got` equals the recorded array within the case's tolerance; integers exactly."""
        wanted = self[name]
        tolerance = self.tolerance if wanted.is_floating_point() else {}
        torch.testing.assert_close(
            got,
            wanted,
            check_dtype=wanted.is_floating_point(),
            msg=lambda m: f"{name}: {m}",
            **(tolerance or {"rtol": 0, "atol": 0}),
        )
