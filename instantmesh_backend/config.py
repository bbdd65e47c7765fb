"""The numbers of the four reconstruction models, complete where written.

Names are those of `model_config.params` in the original's yaml files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from onelook.nn.vit import ViTConfig


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What the mesh models and the NeRF models have in common.

    triplane_low_res: tokens along a side of a plane; triplane_high_res: texels, twice as many.
    """

    transformer_layers: int
    triplane_dim: int
    rendering_samples_per_ray: int
    encoder_feat_dim: int = 768
    transformer_dim: int = 1024
    transformer_heads: int = 16
    triplane_low_res: int = 32
    triplane_high_res: int = 64
    encoder_freeze: bool = False  # of training
    encoder_model_name: str = "facebook/dino-vitb16"
    vit: ViTConfig = field(default_factory=ViTConfig)

    def __post_init__(self) -> None:
        if self.transformer_dim % self.transformer_heads:
            raise ValueError(
                "transformer_dim must be a multiple of transformer_heads, got"
                f" {self.transformer_dim} and {self.transformer_heads}"
            )
        if self.encoder_feat_dim != self.vit.hidden_size:
            raise ValueError(
                f"encoder_feat_dim must be the encoder's width {self.vit.hidden_size}, got"
                f" {self.encoder_feat_dim}"
            )
        if self.triplane_high_res != 2 * self.triplane_low_res:
            raise ValueError(
                "triplane_high_res must be twice triplane_low_res, got"
                f" {self.triplane_high_res} and {self.triplane_low_res}"
            )


@dataclass(frozen=True, kw_only=True)
class MeshConfig(ReconstructionConfig):
    """grid_res: cells along a side of the lattice; grid_scale: its side in world units."""

    grid_res: int = 128
    grid_scale: float = 2.0


@dataclass(frozen=True, kw_only=True)
class NerfConfig(ReconstructionConfig):
    """The published NeRF models have no numbers of their own."""


# The original's class -> config; the published names are keys of RECONSTRUCTION.
TARGETS: dict[str, type[ReconstructionConfig]] = {
    "src.models.lrm_mesh.InstantMesh": MeshConfig,
    "src.models.lrm.InstantNeRF": NerfConfig,
}
_LARGE = {"transformer_layers": 16, "triplane_dim": 80, "rendering_samples_per_ray": 128}
_BASE = {"transformer_layers": 12, "triplane_dim": 40, "rendering_samples_per_ray": 96}
RECONSTRUCTION: dict[str, ReconstructionConfig] = {
    "instant-mesh-large": MeshConfig(**_LARGE, grid_scale=2.1),
    "instant-mesh-base": MeshConfig(**_BASE, grid_scale=2.1),
    "instant-nerf-large": NerfConfig(**_LARGE),
    "instant-nerf-base": NerfConfig(**_BASE),
}


def reconstruction_config(target: str, params: Mapping[str, Any]) -> ReconstructionConfig:
    """The config of `model_config: {target, params}` in one of the original's yaml files.

    An encoder of another size than the published models' is described by params of our own, `vit`.
    Raises ValueError for an unknown target, and for params that are unknown, missing or at odds.
    """
    if target not in TARGETS:
        raise ValueError(f"model_config.target must be one of {', '.join(TARGETS)}, got {target!r}")
    kind = TARGETS[target]
    known = {one.name for one in fields(kind)}
    if unknown := sorted(params.keys() - known):
        raise ValueError(f"model_config.params has an unknown {unknown[0]!r}")
    missing = sorted(_LARGE.keys() - params.keys())
    if missing:
        raise ValueError(f"model_config.params lacks {', '.join(missing)}")
    return kind(**{**params, "vit": ViTConfig(**params.get("vit", {}))})
