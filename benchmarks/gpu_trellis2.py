"""TRELLIS.2 for `gpu.py`: a hollow torus, whatever the random networks say.

About 2.1 million voxels at a resolution of 1024. R resolution, N voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from gpu_case import Case, Run
from made_checkpoints import make_dino3, make_trellis2
from made_dual_grid import MadeDualGrid, made_dual_grid, torus_shell
from torch import Tensor, nn

from onelook.isosurface.flexicubes_lattice import Lattice, find
from onelook.nn.subdivision import Subdivision
from onelook.nn.voxels import SparseTensor, Voxels
from trellis2_backend.backend import Trellis2Backend
from trellis2_backend.dual_grid import DualGrid
from trellis2_backend.sparse_blocks import UpBlock

RADIUS, TUBE, WALL = 0.21, 0.09, 0.02  # of the torus, in the unit cube
STEEPNESS = 1.1  # of its ripples
TINY = 0.15  # of that size for tiny networks
RESOLUTIONS = (512, 1024, 1152, 1280, 1408, 1536)
STRUCTURE = 64


def write_weights(root: Path) -> Mapping[str, str]:
    make_trellis2(root, hollow=False)
    make_dino3(root)
    return {"ONELOOK_WEIGHTS": str(root)}


def write_tiny(root: Path) -> Mapping[str, str]:
    from helpers.trellis2_checkpoint import write_dino3, write_trellis2

    return {
        "ONELOOK_TRELLIS2_WEIGHTS": str(write_trellis2(root / "trellis2")),
        "ONELOOK_DINOV3_VITL16_WEIGHTS": str(write_dino3(root / "dino3")),
    }


@dataclass(frozen=True)
class Torus:
    """The torus at one resolution; keys (N,) ascending: of its voxels in `lattice`."""

    made: MadeDualGrid
    lattice: Lattice
    keys: Tensor

    def rows(self, coords: Tensor) -> Tensor:
        """coords (N, 3) -> rows of the torus's voxels, -1 where none is."""
        return find(self.keys, self.lattice.keys(coords))

    def runs_through(self, coords: Tensor, shift: int) -> Tensor:
        """coords (N, 3) of cells of 2^shift voxels a side -> whether the torus has voxels there."""
        coarse = torch.from_numpy(self.made.coords) >> shift
        return find(torch.unique(self.lattice.keys(coarse)), self.lattice.keys(coords)) >= 0


@cache
def torus(resolution: int, size: float) -> Torus:
    made = made_dual_grid(torus_shell(size * RADIUS, size * TUBE, WALL), resolution, STEEPNESS)
    lattice = Lattice((0, 0, 0), (resolution + 2,) * 3)
    return Torus(made, lattice, lattice.keys(torch.from_numpy(made.coords)))


def prepare(backend: Trellis2Backend) -> None:
    """Its decoder says where the structure is, the shape's decoder which voxels are divided and
    what is in them."""
    networks = backend.pipeline.networks
    decoder = networks["shape_decoder"]
    size = 1.0 if networks["shape_flow_512"].config.model_channels > 1000 else TINY
    known: dict[tuple[int, int, int], Tensor] = {}
    at = {"resolution": 0, "level": 0}

    def occupy(_decoder: nn.Module, _inputs: tuple, logits: Tensor) -> Tensor:
        coarse = torch.from_numpy(torus(1024, size).made.coords).long() // (1024 // STRUCTURE)
        shape = torch.full(logits.shape, -1.0)
        shape[:, 0, *coarse.T] = 1.0
        return shape.to(logits)

    def divide(block: UpBlock, given: tuple) -> tuple:
        x, _, finish = given
        if block is decoder.blocks[0][-1]:
            at.update(resolution=_resolution(x.voxels, size), level=0)
        at["level"] += 1
        key = (at["resolution"], at["level"], len(x.voxels))
        if key not in known:
            known[key] = _mask(x.voxels.coords.cpu(), size, *key[:2])
        return x, Subdivision.of_mask(x.voxels, known[key].to(x.feats.device)), finish

    def fill(out: SparseTensor, resolution: int) -> list[DualGrid]:
        coords = out.voxels.coords[:, 1:]
        made = torus(resolution, size)
        key = (resolution, 0, len(coords))
        if key not in known:
            known[key] = made.rows(coords.cpu())
        rows = known[key]
        arrays = (made.made.offsets, made.made.intersected, made.made.split_weight)
        offsets, flags, weight = (torch.from_numpy(a)[rows].to(coords.device) for a in arrays)
        return [DualGrid(coords, offsets, flags, resolution, weight)]

    networks["structure_decoder"].register_forward_hook(occupy)
    for stage in decoder.blocks:
        for block in stage:
            if isinstance(block, UpBlock):
                block.register_forward_pre_hook(divide)
    decoder.dual_grids = fill


def _resolution(tokens: Voxels, size: float) -> int:
    """Which resolution these tokens are of: the torus spans a known share of the cube."""
    reach = 0.5 + size * (RADIUS + TUBE)
    seen = int(tokens.coords[:, 1:].max()) + 1
    return min(RESOLUTIONS, key=lambda resolution: abs(reach * resolution / 16 - seen))


def _mask(coords: Tensor, size: float, resolution: int, level: int) -> Tensor:
    """(N, 8) bool: which children of the voxels, then of 2^level times the tokens' resolution, the
    torus runs through."""
    slots = torch.arange(8)
    bits = torch.stack([slots & 1, (slots >> 1) & 1, slots >> 2], 1)
    children = (2 * coords[:, None, 1:] + bits).flatten(0, 1)
    return torus(resolution, size).runs_through(children, 4 - level).view(-1, 8)


CASE = Case(
    model="trellis2",
    write_weights=write_weights,
    write_tiny=write_tiny,
    prepare=prepare,
    runs=(
        Run("full residency", surface_seconds=14),
        Run("512", options={"pipeline_type": "512"}, surface_seconds=2.5),
        Run("1536_cascade", options={"pipeline_type": "1536_cascade"}, surface_seconds=50),
        Run("low VRAM", vram=6, peak_gb=6),
        Run("512, low VRAM", vram=4, options={"pipeline_type": "512"}, peak_gb=4),
    ),
    tiny_options={
        "pipeline_type": "512",
        "sparse_structure_steps": 1,
        "shape_slat_steps": 1,
        "tex_slat_steps": 1,
        "decimation_target": 2000,
        "texture_size": 256,
        "generate_video": False,
    },
)
