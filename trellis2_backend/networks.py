"""The networks by the class names that checkpoints carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from onelook.nn.inner_type import half_keys
from onelook.nn.structure_vae import SparseStructureDecoder, StructureDecoderConfig
from onelook.weights.opening import open_pair
from trellis2_backend import config
from trellis2_backend.latent_decoder import SparseUnetVaeDecoder
from trellis2_backend.latent_encoder import FlexiDualGridVaeEncoder, SparseUnetVaeEncoder
from trellis2_backend.latent_flow import SLatFlowModel
from trellis2_backend.shape_decoder import FlexiDualGridVaeDecoder
from trellis2_backend.structure_flow import SparseStructureFlowModel

# Class name -> function from the args in the checkpoint's json to the network.
NETWORKS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    network.__name__: lambda args, network=network, numbers=numbers: network(numbers(**args))
    for network, numbers in {
        SparseStructureFlowModel: config.FlowConfig,
        SparseStructureDecoder: StructureDecoderConfig,
        SLatFlowModel: config.FlowConfig,
        FlexiDualGridVaeDecoder: config.ShapeDecoderConfig,
        SparseUnetVaeDecoder: config.DecoderConfig,
        FlexiDualGridVaeEncoder: config.ShapeEncoderConfig,
        SparseUnetVaeEncoder: config.EncoderConfig,
    }.items()
}

# Name in the pipelines -> class.
CLASSES = {
    "structure_flow": SparseStructureFlowModel,
    "structure_decoder": SparseStructureDecoder,
    "shape_flow_512": SLatFlowModel,
    "shape_flow_1024": SLatFlowModel,
    "shape_decoder": FlexiDualGridVaeDecoder,
    "shape_encoder": FlexiDualGridVaeEncoder,
    "texture_flow_512": SLatFlowModel,
    "texture_flow_1024": SLatFlowModel,
    "texture_decoder": SparseUnetVaeDecoder,
}

TORSO = ("blocks", "middle_block")  # parts whose layers compute in half precision


def open_network(stem: Path, name: str) -> nn.Module:
    """Open the pair `stem` as the network that the pipelines call `name`.

    Raises WeightsError as `open_pair`, and when the pair is of another class.
    """
    kind = CLASSES[name].__name__
    return open_pair(stem, {kind: NETWORKS[kind]})


def exact_keys(network: nn.Module) -> set[str]:
    """Parameters that compute in float32 whatever type the official file stores."""
    return {key for key, _ in network.named_parameters()} - half_keys(network, TORSO)
