"""Pictures of a triplane by tracing rays, as the original's film has them.

World space: z up; azimuth 0 stands on +x and sees the side the picture shows, 90 on +y.

M pictures, H rows, W columns, N rays, S steps along a ray, G points of a grid along an axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onelook.nn.rays import box_range, pixel_rays, step_weights
from triposr_backend.extract_mesh import grid_axis
from triposr_backend.scene_field import SceneField

# The original's film.
VIEWS, SIZE, ELEVATION, DISTANCE, FOV_DEGREES = 30, 256, 0.0, 1.9, 40.0
BOX_SHARE = 1 - 1e-3  # of the radius: rays stay a little within the planes
SHORTEST = 0.01  # of a ray inside the box that counts, in world units
BACKGROUND = 1.0  # white
VISIBLE = 1e-3  # density; a whole ray of less changes a picture by a quarter of a step of 256
OCCUPANCY_PER_TEXEL = 2  # grid points along an axis for each texel of the planes
_USED_UP = 1e-5  # of a ray's light: what comes after is not seen
_STEPS = 8  # along a ray, at a time
_RAYS = 16384  # at a time on a CPU
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


@dataclass(frozen=True)
class Occupancy:
    """Where a field is dense enough to be seen: is_filled (G, G, G) bool, over the whole cube."""

    is_filled: Tensor
    radius: float

    @staticmethod
    @torch.inference_mode()
    def of(field: SceneField) -> Occupancy:
        """A place counts as filled when the density does at it or next to it."""
        points = OCCUPANCY_PER_TEXEL * field.side
        axis = grid_axis(points, field.config.radius, field.device)
        density = field.density(torch.cartesian_prod(axis, axis, axis))
        is_filled = (density >= VISIBLE).float().reshape(1, points, points, points)
        around = F.max_pool3d(is_filled, 3, stride=1, padding=1)[0] > 0
        return Occupancy(around, field.config.radius)

    def at(self, points: Tensor) -> Tensor:
        """points (N, 3) -> (N,) bool."""
        last = len(self.is_filled) - 1
        places = ((points / self.radius + 1) * (0.5 * last)).round_().long().clamp_(0, last)
        x, y, z = places.unbind(1)
        return self.is_filled.view(-1)[(x * (last + 1) + y) * (last + 1) + z]


@torch.inference_mode()
def render_rays(
    field: SceneField, origins: Tensor, directions: Tensor, occupancy: Occupancy | None = None
) -> Tensor:
    """Rays (..., 3) of the field's device -> colours (..., 3) 0..1 on white.

    occupancy: the field is asked only where this is filled, which is several times faster and
    changes no channel by more than VISIBLE.
    """
    shape = origins.shape
    rays = origins.reshape(-1, 3), directions.reshape(-1, 3)
    near, far, counts = clip_to_box(*rays, field.config.radius)
    rgb = torch.full_like(rays[0], BACKGROUND)
    at_once = _RAYS if rgb.device.type == "cpu" else _DEVICE_RAYS
    for rows in torch.nonzero(counts)[:, 0].split(at_once):
        some = (x[rows] for x in (*rays, near, far))
        rgb[rows] = _march(field, occupancy, *some)
    return rgb.reshape(shape)


def _march(
    field: SceneField,
    occupancy: Occupancy | None,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
) -> Tensor:
    """Rays (N, 3) that cross the box -> colours (N, 3).

    A step counts 1 / S however long the ray is within the box: so the network was trained. A ray
    that is used up goes no further.
    """
    count = field.config.num_samples_per_ray
    share = (torch.arange(count, device=origins.device) + 0.5) / count
    passing = torch.ones_like(near)
    rgb = torch.zeros_like(origins)
    for steps in share.split(_STEPS):
        live = torch.nonzero(passing > _USED_UP)[:, 0]
        depths = near[live, None] * (1 - steps) + far[live, None] * steps  # (n, steps)
        points = origins[live, None] + depths[..., None] * directions[live, None]
        density, colors = _ask(field, occupancy, points.flatten(0, 1))
        thickness = density.unflatten(0, depths.shape) / count
        weights = step_weights(thickness) * passing[live, None]
        rgb[live] += (weights[..., None] * colors.unflatten(0, depths.shape)).sum(dim=1)
        passing[live] *= torch.exp(-thickness.sum(dim=1))
    return rgb + passing[:, None] * BACKGROUND


def _ask(field: SceneField, occupancy: Occupancy | None, points: Tensor) -> tuple[Tensor, Tensor]:
    """points (N, 3) -> density (N,), colors (N, 3); nothing where nothing is seen."""
    if occupancy is None:
        raw = field.raw(points)
        return field.density_of(raw), field.color_of(raw)
    rows = torch.nonzero(occupancy.at(points))[:, 0]
    raw = field.raw(points[rows])
    density, colors = points.new_zeros(len(points)), torch.zeros_like(points)
    density[rows], colors[rows] = field.density_of(raw), field.color_of(raw)
    return density, colors
