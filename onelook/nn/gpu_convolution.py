"""Which sparse convolution a GPU computes: spconv's where it is installed, else torch's products.

Chosen when first asked for and named in the log; the environment variable SPCONV_ALGO may name one
of ALGORITHMS instead: spconv's own (auto, implicit_gemm, native), or torch to do without spconv.

On a CPU spconv is never used: with more than one thread its results are wrong there.

N voxels, Cin and Cout channels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from onelook.errors import OptionError
from onelook.nn.voxels import Voxels

ALGORITHMS = ("auto", "implicit_gemm", "native", "torch")
VARIABLE = "SPCONV_ALGO"
KINDS = (torch.float16, torch.float32)  # that every version of spconv computes in

# feats (N, Cin), voxels, weight (Cout, 3, 3, 3, Cin), bias (Cout,) -> (N, Cout)
Convolve = Callable[[Tensor, Voxels, Tensor, Tensor], Tensor]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuConvolution:
    """A choice. convolve: None where the portable form is taken."""

    name: str
    convolve: Convolve | None


@cache
def gpu_convolution() -> GpuConvolution:
    """The choice of this process.

    Raises OptionError when SPCONV_ALGO names an unknown algorithm, or spconv is not installed.
    """
    wish = os.environ.get(VARIABLE, "auto")
    if wish not in ALGORITHMS:
        raise OptionError(f"{VARIABLE} must be one of {', '.join(ALGORITHMS)}, got {wish!r}")
    chosen = _choose(wish)
    _log.info("sparse convolution on a GPU: %s", chosen.name)
    return chosen


def _choose(wish: str) -> GpuConvolution:
    if wish == "torch":
        return GpuConvolution("torch", None)
    try:
        import spconv.pytorch  # noqa: F401
    except ImportError as error:  # not there, or built for another CUDA
        if wish != "auto":
            raise OptionError(
                f"{VARIABLE} asks for spconv, which cannot be imported ({error}); unset it or"
                " install spconv for this CUDA"
            ) from error
        return GpuConvolution("torch", None)

    def convolve(feats: Tensor, voxels: Voxels, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve_by_spconv(feats, voxels, weight, bias, wish)

    return GpuConvolution(f"spconv ({wish})", convolve)


def convolve_by_spconv(
    feats: Tensor, voxels: Voxels, weight: Tensor, bias: Tensor, algorithm: str = "auto"
) -> Tensor:
    """feats (N, Cin), weight (Cout, 3, 3, 3, Cin), bias (Cout,) -> (N, Cout).

    The weights lie as spconv has them. Its pairs of neighbours are kept with the voxels.
    """
    from spconv.pytorch import SparseConvTensor

    layer = _layer(len(weight), weight.shape[-1], algorithm)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if not voxels.of_spconv:
        voxels.of_spconv["box"] = (voxels.coords[:, 1:].amax(0) + 1).tolist()
        voxels.of_spconv["pairs"] = {}
    known = voxels.of_spconv
    rows = SparseConvTensor(feats, voxels.coords, known["box"], len(voxels.lengths))
    rows.indice_dict = known["pairs"]
    out = layer(rows)
    known["pairs"] = out.indice_dict
    layer.weight = None  # what is on the device is not this cache's to keep
    return out.features + bias


@cache
def _layer(cout: int, cin: int, algorithm: str) -> nn.Module:
    """spconv's layer without numbers; sums in float32."""
    from spconv.core import ConvAlgo
    from spconv.pytorch import SubMConv3d

    algorithms = {"native": ConvAlgo.Native, "implicit_gemm": ConvAlgo.MaskImplicitGemm}
    with torch.device("meta"):
        layer = SubMConv3d(
            cin,
            cout,
            3,
            bias=False,  # added afterwards: not every build of spconv does both at once
            indice_key="3x3x3",
            algo=algorithms.get(algorithm),
            fp32_accum=True,
        )
    return layer.eval()
