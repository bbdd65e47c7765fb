"""Pictures of an InstantNeRF triplane, as the original's films have them.

Half of a ray's samples are spread evenly, with jitter; the other half goes where these found
something (Chan et al., EG3D, CVPR 2022). Between two samples density and colour are their mean.

M pictures, R pixels along a side, N rays, S samples of a ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from instantmesh_backend.decoder_heads import DensityField, activated_density, widened_sigmoid
from onelook.nn.rays import box_range, pixel_rays, step_weights

NOTHING = torch.finfo(torch.float32).min / 3  # raw density beyond the box
_LEAST_WEIGHT = 0.01  # of an interval, before the second half of the samples is drawn
_EPS = 1e-5


@dataclass(frozen=True)
class Pictures:
    """rgb (M, 3, R, R) on white; depth (M, 1, R, R) summed over the weights, not divided by them;
    weight (M, 1, R, R): how much of the ray is covered, 0..1."""

    rgb: Tensor
    depth: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Draws:
    """Uniform random numbers: jitter (N, S / 2), of the first half; importance (N, S / 2)."""

    jitter: Tensor
    importance: Tensor

    @staticmethod
    def of(generator: Generator, rays: int, samples: int, device: torch.device) -> Draws:
        """Drawn on the CPU, so that a seed means the same everywhere."""
        shape = (rays, samples // 2)
        return Draws(*(torch.rand(shape, generator=generator).to(device) for _ in range(2)))


@torch.inference_mode()
def render_pictures(field: DensityField, cameras: Tensor, size: int, draws: Draws) -> Pictures:
    """cameras (M, 25) as `cameras.nerf_numbers` gives them, on the field's device; size: R."""
    origins, directions = camera_rays(cameras, size)
    near, far = ray_ends(origins, directions)
    even = _spread_depths(near, far, draws.jitter)
    coarse = _Samples.at(field, origins, directions, even)
    more = _important_depths(even, coarse.weights(), draws.importance)
    samples = coarse.joined(_Samples.at(field, origins, directions, more))
    weights, middles = samples.weights(), _means(samples.depths)
    total = weights.sum(dim=1, keepdim=True)  # (N, 1)
    rgb = (weights[..., None] * _means(samples.colors)).sum(dim=1) + 1 - total
    depth = (weights * middles).sum(dim=1, keepdim=True)
    depth = depth.clamp(samples.depths.min(), samples.depths.max())
    planar = [x.unflatten(0, (-1, size, size)).movedim(-1, 1) for x in (rgb, depth, total)]
    return Pictures(*planar)


def camera_rays(cameras: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """cameras (M, 25) -> origins and unit directions, (M * R * R, 3) each."""
    focal = float(cameras[0, 16])
    rays = pixel_rays(cameras[:, :16].unflatten(1, (4, 4)), focal, size, size)
    origins, directions = (x.flatten(0, 2) for x in rays)
    return origins, directions


def ray_ends(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Rays (N, 3) -> where each enters and leaves [-1, 1]^3 (N,); those that miss it get the
    least and the greatest entry of all others."""
    near, far = box_range(origins, directions, 1.0)
    is_hit = far > near
    if not bool(is_hit.any()):
        return near, far
    entries = near[is_hit]
    return near.where(is_hit, entries.min()), far.where(is_hit, entries.max())


@dataclass(frozen=True)
class _Samples:
    """depths (N, S), raw densities (N, S), colors (N, S, 3), along each ray."""

    depths: Tensor
    densities: Tensor
    colors: Tensor

    @staticmethod
    def at(field: DensityField, origins: Tensor, directions: Tensor, depths: Tensor) -> _Samples:
        points = origins[:, None] + depths[..., None] * directions[:, None]  # (N, S, 3)
        is_outside = (points.abs() > 1).any(dim=-1)
        raw = field.field(points.flatten(0, 1)).unflatten(0, depths.shape)  # (N, S, 4)
        densities = raw[..., 0].masked_fill(is_outside, NOTHING)
        colors = widened_sigmoid(raw[..., 1:]).masked_fill(is_outside[..., None], 0)
        return _Samples(depths, densities, colors)

    def joined(self, other: _Samples) -> _Samples:
        """Both sets, by depth."""
        depths, order = torch.sort(torch.cat([self.depths, other.depths], dim=1), stable=True)
        densities = torch.cat([self.densities, other.densities], dim=1).gather(1, order)
        colors = torch.cat([self.colors, other.colors], dim=1)
        return _Samples(depths, densities, colors.gather(1, order[..., None].expand(-1, -1, 3)))

    def weights(self) -> Tensor:
        """Of the intervals between samples: (N, S - 1)."""
        return step_weights(activated_density(_means(self.densities)) * self.depths.diff(dim=1))


def _spread_depths(near: Tensor, far: Tensor, jitter: Tensor) -> Tensor:
    """near and far (N,) -> depths (N, S / 2), each moved within the interval after it."""
    count = jitter.shape[1]
    even = torch.linspace(0, 1, count, device=near.device)
    length = (far - near)[:, None]
    return near[:, None] + (even + jitter / (count - 1)) * length


def _important_depths(depths: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Depths (N, S) and weights (N, S - 1) of the first samples -> more depths, drawn by weight.

    The distribution is linear between the middles of intervals; the last of these is never reached,
    as in the original.
    """
    spread = F.max_pool1d(weights[:, None], 2, stride=1, padding=1)
    smooth = F.avg_pool1d(spread, 2, stride=1)[:, 0] + _LEAST_WEIGHT  # (N, S - 1)
    shares = smooth[:, 1:-1] + _EPS
    shares = shares / shares.sum(dim=1, keepdim=True)
    cdf = F.pad(torch.cumsum(shares, dim=1), (1, 0))  # (N, S - 2)
    above = torch.searchsorted(cdf, draws.contiguous(), right=True)
    ends = torch.stack([(above - 1).clamp(min=0), above.clamp(max=shares.shape[1])])
    low, high = (cdf.gather(1, end) for end in ends)
    first, last = (_means(depths).gather(1, end) for end in ends)
    width = high - low
    return first + (draws - low) / width.where(width >= _EPS, 1.0) * (last - first)


def _means(values: Tensor) -> Tensor:
    """Means of neighbours along dimension 1."""
    return (values[:, :-1] + values[:, 1:]) / 2
