"""The networks by the class names that checkpoints carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from onelook.nn import inner_type
from onelook.nn.structure_vae import (
    SparseStructureDecoder,
    SparseStructureEncoder,
    StructureDecoderConfig,
    StructureEncoderConfig,
)
from trellis_backend import config
from trellis_backend.gaussian_decoder import SLatGaussianDecoder
from trellis_backend.latent_encoder import SLatEncoder
from trellis_backend.latent_flow import SLatFlowModel
from trellis_backend.mesh_decoder import SLatMeshDecoder
from trellis_backend.radiance_decoder import SLatRadianceFieldDecoder
from trellis_backend.structure_flow import SparseStructureFlowModel

# Class name -> function from the args in the checkpoint's json to the network.
NETWORKS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    network.__name__: lambda args, network=network, numbers=numbers: network(numbers(**args))
    for network, numbers in {
        SparseStructureFlowModel: config.StructureFlowConfig,
        SparseStructureDecoder: StructureDecoderConfig,
        SparseStructureEncoder: StructureEncoderConfig,
        SLatFlowModel: config.LatentFlowConfig,
        SLatEncoder: config.LatentEncoderConfig,
        SLatMeshDecoder: config.MeshDecoderConfig,
        SLatGaussianDecoder: config.GaussianDecoderConfig,
        SLatRadianceFieldDecoder: config.RadianceDecoderConfig,
    }.items()
}

# Parts that official files store, and a GPU computes, in half precision.
TORSO = ("blocks", "middle_block", "input_blocks", "out_blocks", "upsample")


def half_keys(network: nn.Module) -> set[str]:
    """Keys that the official files store as float16; everything else is float32."""
    return inner_type.half_keys(network, TORSO)
