"""Configs and fields of TripoSR as the recorded cases give them."""

from __future__ import annotations

from typing import Any

import torch
from helpers.instantmesh_cases import vit_config
from helpers.parity import Parity

from triposr_backend.config import DecoderConfig, RendererConfig, TripoSRConfig
from triposr_backend.scene_field import SceneField
from triposr_backend.scene_model import Decoder, TripoSR


def tiny_config(numbers: dict[str, Any]) -> TripoSRConfig:
    """The config of a whole network: numbers has `tsr` (a yaml's content) and perhaps `vit`."""
    tsr = numbers["tsr"]
    if "vit" in numbers:
        return TripoSRConfig.of_yaml(tsr, vit_config(numbers["vit"]))
    width = tsr["backbone"]["cross_attention_dim"]
    vit = {"hidden_size": width, "num_attention_heads": 1, "patch_size": 8, "image_size": 32}
    return TripoSRConfig.of_yaml(tsr, vit_config(vit))


def seeded_field(case: Parity, planes: torch.Tensor, chunk_size: int = 0) -> SceneField:
    """The decoder of a case, alone or within the network, on these planes (3, C, S, S)."""
    if "tsr" in case.config:
        model = case.seed(TripoSR(tiny_config(case.config)))
        return SceneField(planes, model.decoder, model.config.renderer, chunk_size)
    decoder = case.seed(Decoder(DecoderConfig(**case.config["decoder"])))
    return SceneField(planes, decoder, RendererConfig(**case.config["renderer"]), chunk_size)
