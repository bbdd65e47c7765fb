"""InstantMesh for `gpu.py`: a ball with ripples, whatever the random networks say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpu_case import Case, Run
from made_triplane import coordinates, rippled_ball
from torch import Tensor

from instantmesh_backend.backend import InstantMeshBackend


def write_weights(root: Path) -> Mapping[str, str]:
    from made_pickles import make_instantmesh, make_zero123plus

    make_zero123plus(root)
    make_instantmesh(root)
    return {"ONELOOK_WEIGHTS": str(root)}


def write_tiny(root: Path) -> Mapping[str, str]:
    from helpers.instantmesh_checkpoint import write_all

    zero123plus, instantmesh = write_all(root)
    return {
        "ONELOOK_ZERO123PLUS_V1_2_WEIGHTS": str(zero123plus),
        "ONELOOK_INSTANTMESH_UNET_WEIGHTS": str(instantmesh),
        "ONELOOK_INSTANTMESH_LARGE_WEIGHTS": str(instantmesh),
    }


def prepare(backend: InstantMeshBackend) -> None:
    """The heads of the made checkpoint find the surface where channel 0 adds up to 2, the inside
    above; channels 1 and 2 tell them the colours."""

    def shape(_transformer, _inputs, planes: Tensor) -> Tensor:
        side = planes.shape[-1]
        planes = planes.clone()
        planes[:, :, 0] = (1 - rippled_ball(side)).to(planes)
        planes[:, :, 1:3] = coordinates(side).to(planes)
        return planes

    backend.pipeline.reconstruction.transformer.register_forward_hook(shape)


CASE = Case(
    model="instantmesh",
    write_weights=write_weights,
    write_tiny=write_tiny,
    prepare=prepare,
    runs=(
        Run("full residency", surface_seconds=6),
        Run("low VRAM", vram=6, peak_gb=6),
    ),
    tiny_options={
        "diffusion_steps": 1,
        "decimation_target": 2000,
        "texture_size": 256,
        "generate_video": False,
    },
)
