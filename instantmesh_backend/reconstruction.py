"""The reconstruction models: six views and their cameras -> triplanes.

Xu et al., InstantMesh: Efficient 3D Mesh Generation from a Single Image with Sparse-view Large
Reconstruction Models, 2024. Keys are the checkpoint's without the prefix `lrm_generator.`.

B objects, V views, C channels of a plane, S texels along its side.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from instantmesh_backend.config import MeshConfig, ReconstructionConfig
from instantmesh_backend.decoder_heads import MeshHeads, NerfHead
from instantmesh_backend.encoder import ViewEncoder
from instantmesh_backend.triplane_transformer import TriplaneTransformer
from onelook.weights.opening import open_model

PREFIX = "lrm_generator."  # what Lightning puts before the keys
NOT_OURS = ("source_camera",)  # older files hold a camera of training
BLOCKS = ("encoder.model.encoder.layer", "transformer.layers")  # may come to the device in turn


class Reconstruction(nn.Module):
    """What all four models have; the decoder's heads make the difference."""

    def __init__(self, config: ReconstructionConfig, heads: nn.Module):
        super().__init__()
        self.config = config
        self.encoder = ViewEncoder(config.vit)
        self.transformer = TriplaneTransformer(config)
        self.synthesizer = nn.Module()
        self.synthesizer.decoder = heads

    def forward_planes(self, images: Tensor, cameras: Tensor) -> Tensor:
        """images (B, V, 3, H, W) 0..1, H and W multiples of 16 (320 in training), cameras
        (B, V, 16) as `cameras.view_cameras` gives them -> planes (B, 3, C, S, S)."""
        return self.transformer(self.encoder(images, cameras))


class InstantMesh(Reconstruction):
    """The mesh models: a signed field for FlexiCubes."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__(config, MeshHeads(config.triplane_dim))


class InstantNeRF(Reconstruction):
    """The NeRF models: a density for marching cubes."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__(config, NerfHead(config.triplane_dim))


def build_reconstruction(config: ReconstructionConfig) -> Reconstruction:
    """The network of a config, without weights."""
    return (InstantMesh if isinstance(config, MeshConfig) else InstantNeRF)(config)


def open_reconstruction(path: Path, config: ReconstructionConfig) -> Reconstruction:
    """Open an official checkpoint (.ckpt, converted once). Raises as `open_model`."""
    return open_model(lambda: build_reconstruction(config), path, prefix=PREFIX, ignore=NOT_OURS)
