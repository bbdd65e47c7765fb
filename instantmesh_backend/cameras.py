"""Where Zero123++ takes its six views from, as the reconstruction models are told; and an orbit.

World space: right-handed, z up; azimuth 0 stands on +x, which is where the picture was taken from,
90 on +y. A camera is OpenGL's: +x right, +y up, looking along -z; its matrix is camera to world.

B objects, V views, M places on an orbit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

AZIMUTHS = (30, 90, 150, 210, 270, 330)  # degrees, relative to the picture
ELEVATIONS = (20, -10, 20, -10, 20, -10)
FOV_DEGREES = 30.0
RADIUS, ORBIT_RADIUS, ORBIT_ELEVATION, ORBIT_FRAMES = 4.0, 4.5, 20.0, 120
FOUR_VIEWS = (0, 2, 4, 5)  # the views kept where four are enough
FOCAL = 0.5 / math.tan(math.radians(FOV_DEGREES) / 2)  # of a picture 1 wide


def view_cameras(batch: int = 1, radius: float = RADIUS) -> Tensor:
    """The six views' cameras -> (B, 6, 16): the first three rows of the matrix, then focal length
    and middle of the picture along x and y (fx, fy, cx, cy), of a picture 1 wide."""
    matrices = orbit_matrices(AZIMUTHS, ELEVATIONS, radius)
    lens = torch.tensor([FOCAL, FOCAL, 0.5, 0.5]).expand(len(matrices), -1)
    cameras = torch.cat([matrices[:, :3].flatten(1), lens], dim=1)  # (6, 16)
    return cameras.expand(batch, -1, -1)


def orbit(
    frames: int = ORBIT_FRAMES, radius: float = ORBIT_RADIUS, elevation: float = ORBIT_ELEVATION
) -> Tensor:
    """Cameras of the original's film: one turn from +x -> camera to world (M, 4, 4)."""
    azimuths = [360 * frame / frames for frame in range(frames)]
    return orbit_matrices(azimuths, [elevation] * frames, radius)


def orbit_matrices(azimuths: Sequence[float], elevations: Sequence[float], radius: float) -> Tensor:
    """Upright cameras that look at the origin from `radius` away -> (M, 4, 4) float32.

    azimuths and elevations: M degrees each, elevations between -90 and 90.
    """
    azimuth, elevation = (
        torch.tensor(angles, dtype=torch.float64).deg2rad() for angles in (azimuths, elevations)
    )
    flat, high = elevation.cos(), elevation.sin()
    backward = torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), high], dim=1)
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=1)
    up = torch.linalg.cross(backward, right)
    matrices = torch.eye(4, dtype=torch.float64).repeat(len(azimuth), 1, 1)
    matrices[:, :3] = torch.stack([right, up, backward, radius * backward], dim=2)
    return matrices.float()


def nerf_numbers(matrices: Tensor) -> Tensor:
    """Matrices (M, 4, 4) -> what the NeRF renderer takes (M, 25): matrix, then the lens (3, 3)."""
    lens = matrices.new_tensor([FOCAL, 0, 0.5, 0, FOCAL, 0.5, 0, 0, 1])
    return torch.cat([matrices.flatten(1), lens.expand(len(matrices), -1)], dim=1)
