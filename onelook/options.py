"""Every user option once: name, type, default, range or choices, and help text.

The doors (Cog, command line, REST, demo page) show these fields under these names and hand what
they got to `parse_options`, so an option means the same everywhere. Importing this module is cheap.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import random
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onelook.errors import OptionError

MAX_SEED = 2147483647
QUALITY_PRESETS = {  # name -> faces, texture pixels
    "balanced": (500_000, 2048),
    "high": (1_000_000, 4096),
    "ultra": (2_000_000, 4096),
}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def _option(
    default: Any,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    even: bool = False,
) -> Any:
    return field(
        default=default,
        metadata={
            "help": help,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "even": even,
        },
    )


@dataclass(frozen=True)
class Options:
    """What a user may ask of one generation; the defaults are the product's defaults."""

    model: str = _option(
        "auto",
        "System that makes the shape. auto takes the best one whose weights are on this machine and"
        " that fits its device; relief is an instant preview that needs no weights.",
        choices=(
            *("auto", "trellis2", "trellis", "instantmesh", "instantmesh-base", "instantnerf"),
            *("instantnerf-base", "triposr", "relief"),
        ),
    )
    seed: int = _option(
        42,
        "Seed of every random number: same seed, same device, same files. relief has no randomness"
        " and ignores it.",
        0,
        MAX_SEED,
    )
    randomize_seed: bool = _option(
        False, "Draw a new seed for this run; the seed used is returned in the metrics."
    )
    preprocess_image: bool = _option(
        True,
        "Remove the background and crop to the subject. Off: the picture is taken as it is, with"
        " its own alpha if it has one.",
    )
    return_no_background: bool = _option(
        False, "Also return the picture with its background removed (PNG)."
    )
    generate_video: bool = _option(
        True, "Also return a turntable video of 4 seconds (MP4, or what video_format says)."
    )
    generate_model: bool = _option(True, "Return the textured 3D model (GLB, or what format says).")
    pipeline_type: str = _option(
        "1024_cascade",
        "Resolution of the shape. TRELLIS.2 only; relief ignores it.",
        choices=("512", "1024", "1024_cascade", "1536_cascade"),
    )
    sparse_structure_steps: int = _option(
        12,
        "Sampling steps of the sparse structure. TRELLIS and TRELLIS.2 only; relief ignores it.",
        1,
        50,
    )
    sparse_structure_cfg: float = _option(
        7.5,
        "Guidance scale of the sparse structure. TRELLIS and TRELLIS.2 only; relief ignores it.",
        0,
        15,
    )
    shape_slat_steps: int = _option(
        12, "Sampling steps of the shape latent. TRELLIS.2 only; relief ignores it.", 1, 50
    )
    shape_slat_cfg: float = _option(
        7.5, "Guidance scale of the shape latent. TRELLIS.2 only; relief ignores it.", 0, 15
    )
    tex_slat_steps: int = _option(
        12, "Sampling steps of the texture latent. TRELLIS.2 only; relief ignores it.", 1, 50
    )
    tex_slat_cfg: float = _option(
        7.5,
        "Guidance scale of the texture latent; the authors of TRELLIS.2 use 1.0. TRELLIS.2 only;"
        " relief ignores it.",
        0,
        15,
    )
    slat_steps: int = _option(
        12, "Sampling steps of the latent. TRELLIS only; relief ignores it.", 1, 50
    )
    slat_cfg: float = _option(
        3.0, "Guidance scale of the latent. TRELLIS only; relief ignores it.", 0, 15
    )
    multi_image_mode: str = _option(
        "stochastic",
        "How several pictures of one object are combined: stochastic lets them take turns,"
        " multidiffusion averages what each asks for and takes longer. TRELLIS only; others ignore"
        " it.",
        choices=("stochastic", "multidiffusion"),
    )
    diffusion_steps: int = _option(
        75, "Sampling steps of the six views. InstantMesh only; others ignore it.", 1, 150
    )
    diffusion_cfg: float = _option(
        4.0, "Guidance scale of the six views. InstantMesh only; others ignore it.", 0, 15
    )
    foreground_ratio: float = _option(
        0.85,
        "Share of the picture's side that the subject fills. TripoSR only; others ignore it.",
        0.5,
        1.0,
    )
    mc_resolution: int = _option(
        256,
        "Resolution of the grid on which the surface is found. TripoSR only; others ignore it.",
        32,
        512,
    )
    chunk_size: int = _option(
        0,
        "Points that are looked up at once; less takes less memory, 0 is chosen by itself. TripoSR"
        " only; others ignore it.",
        0,
        1_048_576,
    )
    remesh: bool = _option(
        False,
        "Rebuild the surface as one closed skin before simplifying: watertight, and slower."
        " TRELLIS.2 only; others ignore it.",
    )
    decimation_target: int = _option(
        1_000_000,
        "Most faces the model may have; used when quality is custom.",
        500,
        2_000_000,
    )
    texture_size: int = _option(
        4096, "Width and height of the textures in pixels; used when quality is custom.", 256, 8192
    )
    bake_texture: bool = _option(
        True,
        "Lay the model out in UVs and bake textures. Off: one colour per vertex, which is quick and"
        " keeps less detail; texture options are then ignored.",
    )
    quality: str = _option(
        "custom",
        "custom uses decimation_target and texture_size; balanced is 500k faces and 2048 pixels,"
        " high 1M and 4096, ultra 2M and 4096.",
        choices=("custom", "balanced", "high", "ultra"),
    )
    format: str = _option(
        "glb",
        "File format of the model. obj is one ZIP that holds OBJ, MTL and PNG textures; ply has"
        " colours and UVs at the vertices; stl is the bare shape.",
        choices=("glb", "obj", "ply", "stl"),
    )
    texture_format: str = _option(
        "png",
        "Image format of the textures in a GLB. png is lossless; jpeg and webp are several times"
        " smaller; WebP in GLB is not read by Unreal. Other formats ignore it.",
        choices=("png", "jpeg", "webp"),
    )
    geometry_compression: str = _option(
        "none",
        "Compression of the geometry in a GLB. draco takes it to a tenth, rounds positions to"
        " 1/16384 of the size and needs a reader with KHR_draco_mesh_compression. Other formats"
        " ignore it.",
        choices=("none", "draco"),
    )
    normal_map: bool = _option(
        False,
        "Also bake the surface as it was before simplification into a tangent-space normal map, for"
        " GLB and OBJ. Of use where decimation_target is far below the faces of the surface.",
    )
    video_size: int = _option(
        512, "Width and height of the video in pixels, an even number.", 256, 1024, even=True
    )
    video_format: str = _option(
        "mp4",
        "File format of the video. mp4 (H.264) and webm (VP9) have 30 frames a second, the"
        " animations gif and webp 20.",
        choices=("mp4", "gif", "webp", "webm"),
    )
    video_source: str = _option(
        "mesh",
        "What the video shows: mesh is the model as it is delivered; nerf the model's own field, in"
        " 30 views. TripoSR only has one; of others the mesh is shown.",
        choices=("mesh", "nerf"),
    )
    return_preview: bool = _option(
        False, "Also return one picture of the model on a transparent background (PNG, 512 pixels)."
    )
    return_contact_sheet: bool = _option(
        False, "Also return eight views around the model in one picture (PNG)."
    )

    generate_gaussian: bool = _option(
        False,
        "Also return the 3D Gaussians that colour the model (PLY). TRELLIS only; others make none.",
    )
    generate_views: bool = _option(
        False,
        "Also return the six views that the model is made from in one picture (PNG). InstantMesh"
        " only; others make none.",
    )

    generate_frames: bool = _option(
        False,
        "Also return 30 views of the model's own field as PNG pictures (ZIP). TripoSR only; others"
        " make none.",
    )

    @property
    def needs_asset(self) -> bool:
        """Whether any output needs the 3D asset, not only the picture."""
        return self.generate_model or self.is_shown

    @property
    def is_shown(self) -> bool:
        """Whether any output is a picture or a film of the asset."""
        return self.generate_video or self.return_preview or self.return_contact_sheet

    @property
    def needs_surface(self) -> bool:
        """Whether any output needs a backend."""
        own = (self.generate_gaussian, self.generate_views, self.generate_frames)
        return self.needs_asset or any(own)

    @property
    def face_budget(self) -> int:
        """Most faces of the asset, after `quality`."""
        return QUALITY_PRESETS.get(self.quality, (self.decimation_target, 0))[0]

    @property
    def texture_pixels(self) -> int:
        """Width and height of the textures in pixels, after `quality`."""
        return QUALITY_PRESETS.get(self.quality, (0, self.texture_size))[1]

    def with_drawn_seed(self) -> Options:
        """These options with the seed of this run: a new one where `randomize_seed` is set."""
        if not self.randomize_seed:
            return self
        return dataclasses.replace(self, seed=random.SystemRandom().randint(0, MAX_SEED))


def option_fields() -> tuple[dataclasses.Field, ...]:
    """The options in their order; `metadata` holds help, minimum, maximum and choices."""
    return dataclasses.fields(Options)


def parse_options(values: Mapping[str, Any]) -> Options:
    """Checked options from what a door received (JSON values or text); defaults for the rest.

    A whole float counts as an int, an int as a float, and text is read as the option's type.
    Raises OptionError naming the option, what came and what was expected.
    """
    by_name = {option.name: option for option in option_fields()}
    for name in values:
        if name not in by_name:
            raise OptionError(f"there is no option {_shown(name)}{_suggestion(name, by_name)}")
    return Options(**{name: _coerce(by_name[name], value) for name, value in values.items()})


def _suggestion(word: str, known: Any) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _shown(value: Any) -> str:
    """The value as an error shows it: in quotes if text, its middle left out where it is long."""
    return reprlib.repr(value)


def _coerce(option: dataclasses.Field, value: Any) -> Any:
    kind = type(option.default)
    if kind is bool:
        return _as_bool(option.name, value)
    if kind is str:
        return _as_choice(option, value)
    return _as_number(option, value, kind)


def _as_bool(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE + _FALSE:
        return text in _TRUE
    raise OptionError(f"{name} must be true or false, got {_shown(value)}")


def _as_choice(option: dataclasses.Field, value: Any) -> str:
    choices = option.metadata["choices"]
    if str(value) not in choices:
        raise OptionError(
            f"{option.name} must be one of {', '.join(choices)}, got {_shown(str(value))}"
        )
    return str(value)


def _as_number(option: dataclasses.Field, value: Any, kind: type) -> int | float:
    low, high = option.metadata["minimum"], option.metadata["maximum"]
    even = option.metadata["even"]
    noun = "an even number" if even else "a whole number" if kind is int else "a number"
    problem = OptionError(f"{option.name} must be {noun} from {low} to {high}, got {_shown(value)}")
    if isinstance(value, bool):
        raise problem
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise problem from None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        raise problem
    if not low <= number <= high or (even and number % 2):
        raise problem
    return kind(number)


def options_table() -> str:
    """The options as a Markdown table; docs/options.md holds a copy that a test keeps equal."""
    lines = ["| option | default | range or choices | meaning |", "| --- | --- | --- | --- |"]
    for option in option_fields():
        limits = option.metadata
        domain = ", ".join(limits["choices"])
        if limits["minimum"] is not None:
            domain = f"{limits['minimum']}..{limits['maximum']}{', even' * limits['even']}"
        default = str(option.default).lower() if option.type == "bool" else option.default
        lines.append(f"| `{option.name}` | {default} | {domain} | {limits['help']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(options_table())
