"""The numbers of the networks, as the json beside each checkpoint gives them.

Names are the json's. `dtype` and `use_fp16` say in which type the inner layers were trained; here a
network computes in the type its weights have. The structure's decoder is TRELLIS's, see
`onelook.nn.structure_vae`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """A flow model: of the structure, of the shape's latent, of the texture's."""

    resolution: int
    in_channels: int
    out_channels: int
    model_channels: int
    cond_channels: int
    num_blocks: int
    num_heads: int | None = None
    num_head_channels: int = 64
    mlp_ratio: float = 4
    pe_mode: str = "rope"
    rope_freq: tuple[float, float] = (1.0, 10000.0)
    dtype: str = "float32"
    use_checkpoint: bool = False  # of training
    initialization: str = "vanilla"  # of training
    share_mod: bool = False
    qk_rms_norm: bool = False
    qk_rms_norm_cross: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rope_freq", tuple(self.rope_freq))
        _require(self, pe_mode="rope", rope_freq=(1.0, 10000.0))
        if self.heads < 1 or self.model_channels % (2 * self.heads):
            raise ValueError(
                "model_channels must be an even multiple of num_heads, got"
                f" {self.model_channels} and {self.heads}"
            )

    @property
    def heads(self) -> int:
        return self.num_heads or self.model_channels // self.num_head_channels

    @property
    def head_width(self) -> int:
        return self.model_channels // self.heads


@dataclass(frozen=True, kw_only=True)
class UnetConfig:
    """What the decoders and encoders of latents have in common.

    model_channels, num_blocks: width and number of blocks of each resolution, in the order they
    run; between them the resolution doubles or halves.
    """

    model_channels: tuple[int, ...]
    latent_channels: int
    num_blocks: tuple[int, ...]
    block_type: tuple[str, ...] = ()
    block_args: tuple[dict[str, Any], ...] = ()
    use_fp16: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        levels = len(self.model_channels)
        if len(self.num_blocks) != levels:
            raise ValueError(
                f"model_channels and num_blocks must be equally many, got {levels} and"
                f" {len(self.num_blocks)}"
            )
        _require_all(self.block_type, "SparseConvNeXtBlock3d", "block_type")
        _require_all(self.block_args, {}, "block_args")

    @property
    def doublings(self) -> int:
        """By how many factors of two the resolution changes."""
        return len(self.model_channels) - 1


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(UnetConfig):
    """pred_subdiv: whether it says itself which children a voxel has."""

    out_channels: int
    up_block_type: tuple[str, ...] = ()
    pred_subdiv: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_all(self.up_block_type, "SparseResBlockC2S3d", "up_block_type")


SHAPE_CHANNELS = 3 + 3 + 1  # vertex, crossed edges, weight of the split


@dataclass(frozen=True, kw_only=True)
class ShapeDecoderConfig(DecoderConfig):
    """resolution: of training, not used. voxel_margin: how far a vertex may leave its voxel."""

    out_channels: int = SHAPE_CHANNELS
    resolution: int = 0
    voxel_margin: float = 0.5


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(UnetConfig):
    in_channels: int
    down_block_type: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_all(self.down_block_type, "SparseResBlockS2C3d", "down_block_type")


@dataclass(frozen=True, kw_only=True)
class ShapeEncoderConfig(EncoderConfig):
    """Takes the vertex and the crossed edges of each voxel."""

    in_channels: int = 6


def _require(config: object, **wanted: object) -> None:
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(f"{name} must be {value!r}, got {getattr(config, name)!r}")


def _require_all(values: tuple, wanted: object, name: str) -> None:
    if any(value != wanted for value in values):
        raise ValueError(f"every {name} must be {wanted!r}, got {list(values)}")
