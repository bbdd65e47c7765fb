"""Pictures of a triplane by tracing rays, as the original's film has them.

World space: z up; azimuth 0 stands on +x and sees the side the picture shows, 90 on +y.

M pictures, H rows, W columns, N rays, S steps along a ray.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onelook.nn.rays import box_range, pixel_rays, step_weights
from triposr_backend.scene_field import SceneField

# The original's film.
VIEWS, SIZE, ELEVATION, DISTANCE, FOV_DEGREES = 30, 256, 0.0, 1.9, 40.0
BOX_SHARE = 1 - 1e-3  # of the radius: rays stay a little within the planes
SHORTEST = 0.01  # of a ray inside the box that counts, in world units
BACKGROUND = 1.0  # white
_RAYS = 2048  # at a time on a CPU
_DEVICE_RAYS = 1 << 15  # on a GPU


def orbit_rays(
    views: int = VIEWS,
    height: int = SIZE,
    width: int = SIZE,
    elevation: float = ELEVATION,
    distance: float = DISTANCE,
    fov_degrees: float = FOV_DEGREES,
) -> tuple[Tensor, Tensor]:
    """One turn around the z axis -> origins and unit directions of the rays, (M, H, W, 3) each.

    elevation in degrees, below 90; fov_degrees: the full vertical angle.
    """
    azimuth = torch.arange(views, dtype=torch.float64) * (2 * math.pi / views)
    high = torch.full_like(azimuth, math.radians(elevation))
    backward = torch.stack(
        [high.cos() * azimuth.cos(), high.cos() * azimuth.sin(), high.sin()], dim=1
    )
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=1)
    up = torch.linalg.cross(backward, right, dim=1)
    matrices = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    matrices[:, :3] = torch.stack([right, up, backward, distance * backward], dim=2)
    focal = 0.5 / math.tan(math.radians(fov_degrees) / 2)
    return pixel_rays(matrices.float(), focal, height, width)


def clip_to_box(
    origins: Tensor, directions: Tensor, radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rays (..., 3) -> near, far (...,) and whether each ray counts; 0, 0 and False where not."""
    near, far = box_range(origins, directions, radius * BOX_SHARE)
    near = near.clamp(min=0)
    counts = far - near > SHORTEST
    return near.where(counts, 0.0), far.where(counts, 0.0), counts


@torch.inference_mode()
def render_rays(field: SceneField, origins: Tensor, directions: Tensor) -> Tensor:
    """Rays (..., 3) of the field's device -> colours (..., 3) 0..1 on white."""
    shape = origins.shape
    rays = origins.reshape(-1, 3), directions.reshape(-1, 3)
    near, far, counts = clip_to_box(*rays, field.config.radius)
    rgb = torch.full_like(rays[0], BACKGROUND)
    at_once = _RAYS if rgb.device.type == "cpu" else _DEVICE_RAYS
    for rows in torch.nonzero(counts)[:, 0].split(at_once):
        some = (x[rows] for x in (*rays, near, far))
        rgb[rows] = _march(field, *some)
    return rgb.reshape(shape)


def _march(
    field: SceneField, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor
) -> Tensor:
    """Rays (N, 3) that cross the box -> colours (N, 3).

    A step counts 1 / S however long the ray is within the box: so the network was trained.
    """
    count = field.config.num_samples_per_ray
    ends = torch.linspace(0, 1, count + 1, device=origins.device)
    share = (ends[:-1] + ends[1:]) / 2
    depths = near[:, None] * (1 - share) + far[:, None] * share  # (N, S)
    points = origins[:, None] + depths[..., None] * directions[:, None]
    raw = field.raw(points.flatten(0, 1))
    density = field.density_of(raw).unflatten(0, depths.shape)
    weights = step_weights(density * ends.diff())
    colors = field.color_of(raw).unflatten(0, depths.shape)
    rgb = (weights[..., None] * colors).sum(dim=1)
    return rgb + (1 - weights.sum(dim=1, keepdim=True)) * BACKGROUND
