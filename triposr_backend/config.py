"""The numbers of TripoSR, as config.yaml beside the checkpoint gives them.

Names are the yaml's. Its `*_cls` entries choose the original's classes; those known here are the
official ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from onelook.nn.vit import ViTConfig

T = TypeVar("T")

CLASSES = {
    "image_tokenizer": "tsr.models.tokenizers.image.DINOSingleImageTokenizer",
    "tokenizer": "tsr.models.tokenizers.triplane.Triplane1DTokenizer",
    "backbone": "tsr.models.transformer.transformer_1d.Transformer1D",
    "post_processor": "tsr.models.network_utils.TriplaneUpsampleNetwork",
    "decoder": "tsr.models.network_utils.NeRFMLP",
    "renderer": "tsr.models.nerf_renderer.TriplaneNeRFRenderer",
}
DINO = "facebook/dino-vitb16"


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerConfig:
    pretrained_model_name_or_path: str = DINO


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """plane_size: tokens along a side of a plane."""

    plane_size: int
    num_channels: int


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    in_channels: int
    num_attention_heads: int
    attention_head_dim: int
    num_layers: int
    cross_attention_dim: int
    norm_num_groups: int = 32

    def __post_init__(self) -> None:
        if self.in_channels % self.norm_num_groups:
            raise ValueError(
                f"backbone.in_channels must be a multiple of {self.norm_num_groups}, got"
                f" {self.in_channels}"
            )

    @property
    def width(self) -> int:
        """Channels inside the blocks."""
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True, kw_only=True)
class PostProcessorConfig:
    in_channels: int
    out_channels: int


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """n_hidden_layers: layers with an activation, the first one included."""

    in_channels: int
    n_neurons: int
    n_hidden_layers: int
    activation: str = "silu"

    def __post_init__(self) -> None:
        _require("decoder.activation", self.activation, "silu")


@dataclass(frozen=True, kw_only=True)
class RendererConfig:
    """radius: half of the side of the cube that the planes span, in world units."""

    radius: float
    feature_reduction: str = "concat"
    density_activation: str = "exp"
    density_bias: float = -1.0
    color_activation: str = "sigmoid"
    num_samples_per_ray: int = 128

    def __post_init__(self) -> None:
        _require("renderer.feature_reduction", self.feature_reduction, "concat")
        _require("renderer.density_activation", self.density_activation, "exp")
        _require("renderer.color_activation", self.color_activation, "sigmoid")


@dataclass(frozen=True, kw_only=True)
class TripoSRConfig:
    """cond_image_size: pixels along a side of the picture the network reads."""

    cond_image_size: int
    tokenizer: TokenizerConfig
    backbone: BackboneConfig
    post_processor: PostProcessorConfig
    decoder: DecoderConfig
    renderer: RendererConfig
    image_tokenizer: ImageTokenizerConfig = field(default_factory=ImageTokenizerConfig)
    vit: ViTConfig = field(default_factory=ViTConfig)

    def __post_init__(self) -> None:
        if self.cond_image_size % self.vit.patch_size:
            raise ValueError(
                f"cond_image_size must be a multiple of {self.vit.patch_size}, got"
                f" {self.cond_image_size}"
            )
        for giver, gives, taker, takes in (
            (
                "the image tokenizer",
                self.vit.hidden_size,
                "backbone.cross_attention_dim",
                self.backbone.cross_attention_dim,
            ),
            (
                "tokenizer.num_channels",
                self.tokenizer.num_channels,
                "backbone.in_channels",
                self.backbone.in_channels,
            ),
            (
                "backbone.in_channels",
                self.backbone.in_channels,
                "post_processor.in_channels",
                self.post_processor.in_channels,
            ),
            (
                "three times post_processor.out_channels",
                3 * self.post_processor.out_channels,
                "decoder.in_channels",
                self.decoder.in_channels,
            ),
        ):
            if gives != takes:
                raise ValueError(f"{taker} is {takes}, but {giver} gives {gives}")

    @staticmethod
    def of_yaml(content: Mapping[str, Any], vit: ViTConfig) -> TripoSRConfig:
        """What config.yaml holds. Raises ValueError when it is of another system or incomplete."""
        if not isinstance(content, Mapping):
            raise ValueError("it must hold a mapping")
        for part, name in CLASSES.items():
            _require(f"{part}_cls", content.get(f"{part}_cls", name), name)
        try:
            size = content["cond_image_size"]
            return TripoSRConfig(
                cond_image_size=_checked("cond_image_size", size, int),
                image_tokenizer=_read(ImageTokenizerConfig, "image_tokenizer", content),
                tokenizer=_read(TokenizerConfig, "tokenizer", content),
                backbone=_read(BackboneConfig, "backbone", content),
                post_processor=_read(PostProcessorConfig, "post_processor", content),
                decoder=_read(DecoderConfig, "decoder", content),
                renderer=_read(RendererConfig, "renderer", content),
                vit=vit,
            )
        except KeyError as error:
            raise ValueError(f"it has no {error.args[0]}") from error


def _read(kind: type[T], part: str, content: Mapping[str, Any]) -> T:
    """One section of the yaml; names that only matter in training are refused with the unknown."""
    section = content[part]
    if not isinstance(section, Mapping):
        raise ValueError(f"{part} must be a mapping")
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(section) - set(known)):
        raise ValueError(f"{part} has an unknown entry {unknown[0]!r}")
    values = {}
    for name, value in section.items():
        kind_of_value = {"int": int, "float": float, "str": str}[str(known[name].type)]
        values[name] = _checked(f"{part}.{name}", value, kind_of_value)
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{part} lacks an entry ({error})") from error


def _checked(name: str, value: Any, kind: type) -> Any:
    """value as `kind`: a whole number above 0, a number, or text."""
    good = {int: int, float: (int, float), str: str}[kind]
    is_good = isinstance(value, good) and not isinstance(value, bool)
    if not is_good or (kind is int and value < 1):
        wanted = {int: "a whole number above 0", float: "a number", str: "text"}[kind]
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return kind(value)


def _require(name: str, value: Any, wanted: str) -> None:
    if value != wanted:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
