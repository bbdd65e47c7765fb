"""The original's cameras, for pictures that are compared with its own.

Object space is TRELLIS's: [-0.5, 0.5]^3, z up. Cameras are OpenCV's (x right, y down, z forward);
intrinsics are shares of the picture's width and height. All in float32, as the original computes:
the Hammersley view straight from below has no other definition than its rounding. V views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TURN = 2 * 3.1415  # the original's two pi, which leaves its film a frame short of closing
SNAPSHOT_YAWS = tuple(math.radians(degrees - 16) for degrees in (0, 90, 180, 270))
SNAPSHOT_PITCH = math.radians(20)


def extrinsics(yaws: Tensor, pitches: Tensor, radius: float) -> Tensor:
    """World to camera, looking at the origin: angles (V,) in radians -> (V, 4, 4)."""
    directions = torch.stack(
        [yaws.sin() * pitches.cos(), yaws.cos() * pitches.cos(), pitches.sin()], dim=1
    )
    eyes = directions * radius
    up = torch.tensor([0.0, 0.0, 1.0])
    z = torch.nn.functional.normalize(-eyes, dim=1)
    x = torch.nn.functional.normalize(torch.linalg.cross(-up.expand_as(z), z), dim=1)
    y = torch.nn.functional.normalize(torch.linalg.cross(z, x), dim=1)
    rotations = torch.stack([x, y, z], dim=1)  # rows are the camera's axes
    views = torch.eye(4).repeat(len(eyes), 1, 1)
    views[:, :3, :3] = rotations
    views[:, :3, 3] = -(rotations @ eyes[:, :, None])[..., 0]
    return views


def intrinsics(fov_degrees: float) -> Tensor:
    """(3, 3), of a square picture."""
    focal = 0.5 / math.tan(math.radians(fov_degrees) / 2)
    return torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])


def film_angles(count: int) -> tuple[Tensor, Tensor]:
    """Yaws and pitches (V,) of one turn that bobs up and down."""
    yaws = torch.linspace(0, TURN, count)
    return yaws, 0.25 + 0.5 * torch.linspace(0, TURN, count).sin()


def snapshot_angles(yaws: Sequence[float] = SNAPSHOT_YAWS) -> tuple[Tensor, Tensor]:
    """Yaws and pitches (V,) of the four pictures around an object."""
    return torch.tensor(yaws), torch.full((len(yaws),), SNAPSHOT_PITCH)


def sphere_angles(count: int) -> tuple[Tensor, Tensor]:
    """Yaws and pitches (V,) of views evenly from everywhere: a Hammersley set on the sphere."""
    numbers = range(count)
    turns = torch.tensor([_mirrored_bits(number) for number in numbers], dtype=torch.float64)
    heights = torch.tensor([number / count for number in numbers], dtype=torch.float64)
    pitches = (1 - 2 * heights).acos() - math.pi / 2
    return (2 * math.pi * turns).float(), pitches.float()


def projection(camera: Tensor, near: float, far: float) -> Tensor:
    """OpenCV camera space -> clip space of the splat renderer: intrinsics (3, 3) -> (4, 4)."""
    result = torch.zeros(4, 4)
    result[0, 0], result[1, 1] = 2 * camera[0, 0], 2 * camera[1, 1]
    result[0, 2], result[1, 2] = 2 * camera[0, 2] - 1, 1 - 2 * camera[1, 2]
    result[2, 2], result[2, 3] = far / (far - near), near * far / (near - far)
    result[3, 2] = 1
    return result


def opengl_projection(camera: Tensor, near: float, far: float) -> Tensor:
    """OpenGL camera space -> clip space, as textures are baked: intrinsics (3, 3) -> (4, 4)."""
    result = torch.zeros(4, 4)
    result[0, 0], result[1, 1] = 2 * camera[0, 0], 2 * camera[1, 1]
    result[0, 2], result[1, 2] = 1 - 2 * camera[0, 2], 2 * camera[1, 2] - 1
    result[2, 2], result[2, 3] = (near + far) / (near - far), 2 * near * far / (near - far)
    result[3, 2] = -1
    return result


def opengl_view(view: Tensor) -> Tensor:
    """An OpenCV view (..., 4, 4) with y up and z backward."""
    return view * torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None]


def _mirrored_bits(number: int) -> float:
    """The radical inverse in base 2: 6 = 110 -> 0.011 = 3/8."""
    result, place = 0.0, 0.5
    while number:
        result += place * (number & 1)
        number, place = number >> 1, place / 2
    return result
