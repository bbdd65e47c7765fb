"""TRELLIS for `gpu.py`: a torus knot of 12 000 voxels, whatever the random networks say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from gpu_case import Case, Run
from made_checkpoints import make_dino, make_trellis
from made_voxels import knot_features, knot_shell
from torch import Tensor

from onelook.nn.voxels import SparseTensor
from trellis_backend.backend import TrellisBackend

VOXELS_OF = {64: 12_000, 16: 500}  # per resolution of the structured latent


def write_weights(root: Path) -> Mapping[str, str]:
    make_trellis(root)
    make_dino(root)
    return {"ONELOOK_WEIGHTS": str(root)}


def write_tiny(root: Path) -> Mapping[str, str]:
    from helpers.trellis_checkpoint import write_dino, write_trellis

    return {
        "ONELOOK_TRELLIS_WEIGHTS": str(write_trellis(root / "trellis")),
        "ONELOOK_DINOV2_WITH_REGISTERS_LARGE_WEIGHTS": str(write_dino(root / "dino")),
    }


def prepare(backend: TrellisBackend) -> None:
    """Its decoder says which voxels there are, the mesh decoder where the surface is."""

    def occupy(_decoder, _inputs, logits: Tensor) -> Tensor:
        resolution = logits.shape[-1]
        places = torch.from_numpy(knot_shell(VOXELS_OF[resolution], resolution)).long()
        knot = torch.full(logits.shape, -1.0)
        knot[:, 0, *places.T] = 1.0
        return knot.to(logits)

    def shape(decoder, _inputs, out: SparseTensor) -> SparseTensor:
        out.feats.copy_(_features(decoder.resolution, out))
        return out

    networks = backend.pipeline.networks
    networks["structure_decoder"].register_forward_hook(occupy)
    networks["mesh"].register_forward_hook(shape)


_features_of: dict[int, Tensor] = {}


def _features(resolution: int, fine: SparseTensor) -> Tensor:
    """(N, 101) float32 on the CPU; the voxels are the same in every run."""
    if resolution not in _features_of:
        coords = fine.voxels.coords[:, 1:].cpu().numpy()
        _features_of[resolution] = torch.from_numpy(knot_features(coords, resolution))
    return _features_of[resolution]


CASE = Case(
    model="trellis",
    write_weights=write_weights,
    write_tiny=write_tiny,
    prepare=prepare,
    runs=(
        Run("full residency", surface_seconds=5, file_seconds=12),
        Run("low VRAM", vram=4, peak_gb=4),
    ),
    tiny_options={
        "sparse_structure_steps": 1,
        "slat_steps": 1,
        "decimation_target": 2000,
        "texture_size": 256,
        "generate_video": False,
    },
)
