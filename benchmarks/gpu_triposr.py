"""TripoSR for `gpu.py`: a ball with ripples, whatever the random network says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpu_case import Case, Run
from made_triplane import rippled_ball
from torch import Tensor

from triposr_backend.backend import TripoSRBackend


def write_weights(root: Path) -> Mapping[str, str]:
    from made_pickles import make_triposr

    return {"ONELOOK_TRIPOSR_WEIGHTS": str(make_triposr(root))}


def write_tiny(root: Path) -> Mapping[str, str]:
    from helpers.triposr_checkpoint import write_triposr

    return {"ONELOOK_TRIPOSR_WEIGHTS": str(write_triposr(root / "triposr"))}


def prepare(backend: TripoSRBackend) -> None:
    """The decoder of the made checkpoint finds the surface where channel 0 adds up to RADIUS^2, the
    inside below."""
    from helpers.triposr_checkpoint import RADIUS

    def shape(_upsampler, _inputs, planes: Tensor) -> Tensor:
        planes = planes.clone()
        planes[:, :, 0] = (RADIUS**2 * rippled_ball(planes.shape[-1])).to(planes)
        return planes

    backend.pipeline.model.post_processor.register_forward_hook(shape)


CASE = Case(
    model="triposr",
    write_weights=write_weights,
    write_tiny=write_tiny,
    prepare=prepare,
    runs=(Run("full residency", surface_seconds=0.4),),
    tiny_options={
        "mc_resolution": 64,
        "decimation_target": 2000,
        "texture_size": 256,
        "generate_video": False,
    },
)
