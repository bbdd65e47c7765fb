"""Configs of the reconstruction models as the recorded cases give them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from helpers.parity import Parity

from instantmesh_backend.config import TARGETS, ReconstructionConfig
from onelook.nn.vit import ViTConfig


def vit_config(numbers: dict[str, Any]) -> ViTConfig:
    """The numbers of a hub config that we know."""
    known = {field.name for field in fields(ViTConfig)}
    return ViTConfig(**{name: value for name, value in numbers.items() if name in known})


def tiny_config(case: Parity) -> ReconstructionConfig:
    """The config of a whole model that a case was recorded with."""
    kind = TARGETS["src.models.lrm_mesh.InstantMesh"]
    if "InstantNeRF" in case.case.info["seed_root"]:
        kind = TARGETS["src.models.lrm.InstantNeRF"]
    known = {field.name for field in fields(kind)}
    numbers = {name: value for name, value in case.config.items() if name in known}
    return kind(**numbers | {"vit": vit_config(case.config["vit"])})
