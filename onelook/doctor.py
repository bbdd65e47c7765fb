"""`onelook doctor`: what this machine has, what is missing, and what each missing part brings."""

from __future__ import annotations

import importlib.util
import platform
from dataclasses import dataclass
from importlib import metadata

from onelook import __version__


@dataclass(frozen=True)
class Part:
    """An optional part: the module that shows it is here, what it brings, how to get it."""

    module: str
    brings: str
    remedy: str


OPTIONAL_PARTS = (
    Part("torch", "the neural models (relief does without it)", "pip install torch"),
    Part(
        "rembg", "cleaner cut-outs of photographs, with a model of yours", "pip install rembg[cpu]"
    ),
    Part("DracoPy", "GLB with compressed geometry", "pip install 'onelook[draco]'"),
    Part("flash_attn", "faster attention on a GPU", "docs/accelerators.md"),
    Part("spconv", "another sparse convolution on a GPU", "docs/accelerators.md"),
    Part("nvdiffrast", "another GPU rasteriser; non-commercial licence", "docs/accelerators.md"),
)
CORE_PARTS = ("numpy", "scipy", "opencv-python-headless", "pillow", "av", "warp-lang")


def print_findings() -> None:
    """Print the findings on standard output, one line each."""
    print(f"onelook {__version__}")
    print(f"  python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    _print_device()
    print("libraries")
    for name in CORE_PARTS:
        print(f"  {name:<24} {_version(name)}")
    print("optional parts")
    for part in OPTIONAL_PARTS:
        found = importlib.util.find_spec(part.module) is not None
        state = f"found {_version(part.module)}" if found else f"missing; {part.remedy}"
        print(f"  {part.module:<12} {state}: {part.brings}")
    if importlib.util.find_spec("torch"):
        _print_choices()
    _print_models()


def _print_choices() -> None:
    """What the neural models take on a GPU."""
    from onelook.errors import OptionError
    from onelook.nn import gpu_attention, gpu_convolution

    print("on a GPU")
    for what, choose, variable in (
        ("attention", gpu_attention.gpu_attention, gpu_attention.VARIABLE),
        ("convolution", gpu_convolution.gpu_convolution, gpu_convolution.VARIABLE),
    ):
        try:
            chosen = choose().name
        except OptionError as error:
            chosen = str(error)
        print(f"  {what:<12} {chosen} ({variable} may name another)")


def _print_device() -> None:
    from onelook.kernels import default_device, device_memory_bytes, thread_count

    print(f"  cpu          {thread_count()} threads")
    device = default_device()
    if device == "cpu":
        print("  gpu          none found: models need one for use, relief does not")
    else:
        print(f"  gpu          {device}, {device_memory_bytes(device) / 1e9:.1f} GB")


def _print_models() -> None:
    from onelook.backends import BACKENDS, missing_weights_of

    print("models")
    for name, entry in BACKENDS.items():
        missing = missing_weights_of(entry)
        remedy = f"weights missing; onelook weights pull {' '.join(missing)}"
        print(f"  {name:<12} {remedy if missing else 'ready'}: {entry.summary}")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown version"
