"""The numbers of the networks, as the json beside each checkpoint gives them.

Names are the json's. `use_fp16` says in which type the checkpoint stores its inner layers; here a
network computes in the type its weights have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """What both flow models have in common."""

    resolution: int
    in_channels: int
    out_channels: int
    model_channels: int
    cond_channels: int
    num_blocks: int
    num_heads: int | None = None
    num_head_channels: int = 64
    mlp_ratio: float = 4
    patch_size: int = 2
    pe_mode: str = "ape"
    use_fp16: bool = False
    use_checkpoint: bool = False  # of training
    share_mod: bool = False
    qk_rms_norm: bool = False
    qk_rms_norm_cross: bool = False

    def __post_init__(self) -> None:
        _require_heads(self.model_channels, self.heads)
        if self.pe_mode != "ape":
            raise ValueError(f"pe_mode must be 'ape', got {self.pe_mode!r}")

    @property
    def heads(self) -> int:
        return self.num_heads or self.model_channels // self.num_head_channels


@dataclass(frozen=True, kw_only=True)
class StructureFlowConfig(FlowConfig):
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution % self.patch_size:
            raise ValueError(
                f"resolution must be a multiple of patch_size, got {self.resolution} and"
                f" {self.patch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class LatentFlowConfig(FlowConfig):
    """io_block_channels: widths before and after the transformer, finest first."""

    num_io_res_blocks: int = 2
    io_block_channels: tuple[int, ...] = ()
    use_skip_connection: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "io_block_channels", tuple(self.io_block_channels or ()))
        if log2(self.patch_size) != len(self.io_block_channels):
            raise ValueError(
                f"patch_size must be 2 to the number of io_block_channels, got {self.patch_size}"
                f" and {list(self.io_block_channels)}"
            )
        if not self.use_skip_connection:
            raise ValueError("use_skip_connection must be true")


@dataclass(frozen=True, kw_only=True)
class LatentTorsoConfig:
    """What the encoder and the decoders of the structured latent have in common."""

    resolution: int
    model_channels: int
    latent_channels: int
    num_blocks: int
    num_heads: int | None = None
    num_head_channels: int = 64
    mlp_ratio: float = 4
    attn_mode: str = "swin"
    window_size: int = 8
    pe_mode: str = "ape"
    use_fp16: bool = False
    use_checkpoint: bool = False  # of training
    qk_rms_norm: bool = False

    def __post_init__(self) -> None:
        _require_heads(self.model_channels, self.heads)
        wanted = {"attn_mode": "swin", "pe_mode": "ape", "qk_rms_norm": False}
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} must be {value!r}, got {getattr(self, name)!r}")

    @property
    def heads(self) -> int:
        return self.num_heads or self.model_channels // self.num_head_channels


@dataclass(frozen=True, kw_only=True)
class LatentEncoderConfig(LatentTorsoConfig):
    in_channels: int


@dataclass(frozen=True)
class GaussianHead:
    """How a row becomes Gaussians. lr: factor of each group of channels."""

    lr: dict[str, float]
    perturb_offset: bool
    voxel_size: float
    num_gaussians: int
    filter_kernel_size_2d: float
    filter_kernel_size_3d: float
    scaling_bias: float
    opacity_bias: float
    scaling_activation: str

    @staticmethod
    def of_json(args: dict) -> GaussianHead:
        """Two of the json's names begin with a digit."""
        renamed = {"2d_filter_kernel_size": "filter_kernel_size_2d"}
        renamed["3d_filter_kernel_size"] = "filter_kernel_size_3d"
        return GaussianHead(**{renamed.get(name, name): value for name, value in args.items()})

    def __post_init__(self) -> None:
        rates = {"_xyz": 1, "_features_dc": 1, "_opacity": 1, "_scaling": 1}
        if {name: self.lr.get(name) for name in rates} != rates or "_rotation" not in self.lr:
            raise ValueError(f"lr must be 1 but for _rotation, got {self.lr}")
        if self.scaling_activation != "softplus":
            raise ValueError(
                f"scaling_activation must be softplus, got {self.scaling_activation!r}"
            )


@dataclass(frozen=True)
class RadianceHead:
    """rank of the trivectors, and dim: samples along each of their vectors."""

    rank: int
    dim: int


@dataclass(frozen=True)
class MeshHead:
    """use_color: whether vertices have a colour and a normal."""

    use_color: bool = False


@dataclass(frozen=True, kw_only=True)
class GaussianDecoderConfig(LatentTorsoConfig):
    representation_config: GaussianHead

    def __post_init__(self) -> None:
        super().__post_init__()
        _read_head(self, GaussianHead.of_json)


@dataclass(frozen=True, kw_only=True)
class RadianceDecoderConfig(LatentTorsoConfig):
    representation_config: RadianceHead

    def __post_init__(self) -> None:
        super().__post_init__()
        _read_head(self, lambda args: RadianceHead(**args))


@dataclass(frozen=True, kw_only=True)
class MeshDecoderConfig(LatentTorsoConfig):
    representation_config: MeshHead = field(default_factory=MeshHead)

    def __post_init__(self) -> None:
        super().__post_init__()
        _read_head(self, lambda args: MeshHead(**args))


def _read_head(config: LatentTorsoConfig, read) -> None:
    head = config.representation_config
    if isinstance(head, dict):
        object.__setattr__(config, "representation_config", read(head))


def _require_heads(channels: int, heads: int) -> None:
    if heads < 1 or channels % heads:
        raise ValueError(
            f"model_channels must be a multiple of num_heads, got {channels} and {heads}"
        )
