"""Gaussians: what the Gaussian decoder gives, made usable, turned, and written as .ply.

N Gaussians, L voxels, G Gaussians per voxel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onelook.elementwise import map_steadily
from onelook.files import write_whole

SH_CONSTANT = 0.28209479177387814  # of the spherical harmonic of degree 0: 1 / (2 sqrt(pi))

# TRELLIS's +Z up -> the orientation .ply viewers expect: (x, y, z) -> (x, -z, y). Not that of GLB.
PLY_ROTATION = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
PLY_COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


@dataclass(frozen=True)
class GaussianConfig:
    """The Gaussian decoder's representation: voxels per axis, Gaussians per voxel, and the rest.

    reach: how far from its voxel's centre a Gaussian may lie, in half voxels. kernel_size: the
    least scale. The biases are what raw zeros stand for; rotation_rate multiplies raw rotations.
    """

    resolution: int = 64
    num_gaussians: int = 32
    reach: float = 1.5
    kernel_size: float = 9e-4
    scaling_bias: float = 0.004
    opacity_bias: float = 0.1
    rotation_rate: float = 0.1


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians in TRELLIS's frame ([-0.5, 0.5]^3, +Z up) unless they were `moved`.

    positions (N, 3); scales (N, 3), standard deviations along their own axes; rotations (N, 4)
    quaternions w, x, y, z of any length, from their own axes to space; opacities (N,) 0..1;
    features (N, 3), the colour's spherical harmonic of degree 0, raw. All float32.
    """

    positions: Tensor
    scales: Tensor
    rotations: Tensor
    opacities: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def colors(self) -> Tensor:
        """(N, 3), sRGB-encoded, at least 0; above 1 where the decoder overshoots."""
        return (0.5 + SH_CONSTANT * self.features).clamp(min=0)

    @property
    def rotation_matrices(self) -> Tensor:
        """(N, 3, 3): columns are the Gaussians' own axes."""
        return _matrices(self.rotations)

    def moved(
        self, rotation: Tensor, scale: float = 1.0, translation: Tensor | None = None
    ) -> Gaussians:
        """The same in another frame: p -> scale * rotation p + translation; (3, 3), scalar, (3,).

        Rotations come out with unit length and their largest component positive.
        """
        rotation = rotation.to(self.positions)
        positions = scale * self.positions @ rotation.T
        if translation is not None:
            positions = positions + translation.to(positions)
        return replace(
            self,
            positions=positions,
            scales=scale * self.scales,
            rotations=_quaternions(rotation @ self.rotation_matrices),
        )


def activate(
    xyz: Tensor,
    features: Tensor,
    scaling: Tensor,
    rotation: Tensor,
    opacity: Tensor,
    config: GaussianConfig,
) -> Gaussians:
    """The original's raw parameters -> Gaussians.

    xyz (N, 3), 0..1; features (N, 3); scaling (N, 3); rotation (N, 4); opacity (N, 1). The names
    and formulas are those of representations/gaussian/gaussian_model.py in microsoft/TRELLIS.
    """
    scale_bias = config.scaling_bias + math.log(-math.expm1(-config.scaling_bias))
    opacity_bias = math.log(config.opacity_bias / (1 - config.opacity_bias))
    scales = map_steadily(functional.softplus, scaling.float() + scale_bias)
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0], device=rotation.device)
    return Gaussians(
        positions=xyz.float() - 0.5,
        scales=torch.sqrt(scales * scales + config.kernel_size**2),
        rotations=rotation.float() + identity,
        opacities=map_steadily(torch.sigmoid, opacity.float()[:, 0] + opacity_bias),
        features=features.float(),
    )


def gaussians_of_voxels(
    head: Tensor, coords: Tensor, offset_perturbation: Tensor, config: GaussianConfig
) -> Gaussians:
    """The Gaussian decoder's last layer -> the L * G Gaussians of one object, voxel by voxel.

    head (L, 14 * G); coords (L, 3) integer, 0..resolution - 1; offset_perturbation (G, 3), the
    decoder's buffer. Raises ValueError when the head has another number of channels.
    """
    count = config.num_gaussians
    if head.ndim != 2 or head.shape[1] != 14 * count:
        raise ValueError(
            f"the head must have 14 channels for each of {count} Gaussians, got shape "
            f"{tuple(head.shape)}"
        )
    offsets, features, scaling, rotation, opacity = (
        part.unflatten(1, (count, -1))  # (L, G, width)
        for part in head.float().split([3 * count, 3 * count, 3 * count, 4 * count, count], dim=1)
    )
    moves = map_steadily(torch.tanh, offsets + offset_perturbation)
    moves = moves / config.resolution * 0.5 * config.reach
    centres = (coords.float() + 0.5) / config.resolution
    return activate(
        (centres[:, None] + moves).flatten(0, 1),
        features.flatten(0, 1),
        scaling.flatten(0, 1),
        (rotation * config.rotation_rate).flatten(0, 1),
        opacity.flatten(0, 1),
        config,
    )


def ply_table(gaussians: Gaussians, is_turned: bool = True) -> np.ndarray:
    """The columns of the original's .ply: (N, 17) float32, see PLY_COLUMNS.

    is_turned: turn from +Z up to the usual orientation of .ply files; otherwise positions and
    rotations are written as they are. Scales are logarithms, opacities logits.
    """
    if is_turned:
        gaussians = gaussians.moved(torch.tensor(PLY_ROTATION))
    columns = [
        gaussians.positions,
        torch.zeros_like(gaussians.positions),  # normals, which nothing reads
        gaussians.features,
        map_steadily(torch.logit, gaussians.opacities)[:, None],
        map_steadily(torch.log, gaussians.scales),
        gaussians.rotations,
    ]
    return torch.cat(columns, dim=1).float().cpu().numpy()


def write_gaussians(gaussians: Gaussians, path: Path | str, is_turned: bool = True) -> None:
    """Write a .ply that Gaussian viewers open: binary, little-endian, whole or not at all.

    Raises OutputError when the folder cannot be written.
    """
    header = [
        *("ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"),
        *(f"property float {name}" for name in PLY_COLUMNS),
        "end_header\n",
    ]
    rows = ply_table(gaussians, is_turned).astype("<f4")
    write_whole(path, "\n".join(header).encode("ascii") + rows.tobytes())


def _matrices(quaternions: Tensor) -> Tensor:
    """(N, 4) w, x, y, z of any length -> (N, 3, 3)."""
    w, x, y, z = functional.normalize(quaternions, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def _quaternions(matrices: Tensor) -> Tensor:
    """Rotations (N, 3, 3) -> unit (N, 4) w, x, y, z, the largest component positive.

    Four ways to read a quaternion off a matrix; each row takes the one with the largest component
    in the denominator (Shepperd, Journal of Guidance and Control, 1978).
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(1) for row in matrices.unbind(1))
    one = torch.ones_like(xx)
    candidates = torch.stack(
        [
            torch.stack([one + xx + yy + zz, zy - yz, xz - zx, yx - xy], 1),
            torch.stack([zy - yz, one + xx - yy - zz, xy + yx, xz + zx], 1),
            torch.stack([xz - zx, xy + yx, one - xx + yy - zz, yz + zy], 1),
            torch.stack([yx - xy, xz + zx, yz + zy, one - xx - yy + zz], 1),
        ],
        1,
    )  # (N, 4 ways, 4)
    best = candidates.diagonal(dim1=1, dim2=2).argmax(1)
    rows = torch.arange(len(best), device=best.device)
    return functional.normalize(candidates[rows, best], dim=1)
