"""Gaussians drawn exactly, pixel by pixel: what the quick answers about colour are measured by.

The formulas of the Mip-Splatting rasteriser (autonomousvision/mip-splatting) as TRELLIS calls it:
covariances projected with the local affine map (Zwicker et al., EWA splatting, 2001), a filter of
0.1 pixels, tiles of 16 x 16 pixels, front to back by depth.

N Gaussians, S pixels per side of the square picture.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

KERNEL_SIZE = 0.1  # pixels squared
TILE = 16  # pixels
_AT_ONCE = 128  # Gaussians of a tile evaluated before looking whether it is full


@dataclass(frozen=True)
class Splats:
    """Gaussians in a picture, front to back.

    order (N,) which Gaussian; center (N, 2) pixels, whole numbers are pixel centres; conic (N, 3)
    xx, xy, yy of the inverse covariance; opacity (N,) after the filter; radius (N,) pixels; depth
    (N,). Gaussians behind the camera are left out.
    """

    order: Tensor
    center: Tensor
    conic: Tensor
    opacity: Tensor
    radius: Tensor
    depth: Tensor


@contextmanager
def one_thread():
    """torch on one thread: tiles are too small to be shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def project(
    positions: Tensor,
    scales: Tensor,
    rotations: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    focal: float,
    size: int,
) -> Splats:
    """Gaussians (N, 3), (N, 3), (N, 4) wxyz, (N,) seen by a camera.

    world_to_camera (4, 4): OpenCV's axes, x right, y down, z into the picture; focal: over the
    picture's width.
    """
    camera_rotation = world_to_camera[:3, :3]
    seen = positions @ camera_rotation.T + world_to_camera[:3, 3]
    x, y, z = seen.unbind(1)
    limit = 1.3 * 0.5 / focal
    pixels = focal * size
    zero = torch.zeros_like(z)
    affine = torch.stack(
        [
            torch.stack([pixels / z, zero, -pixels * (x / z).clamp(-limit, limit) / z], 1),
            torch.stack([zero, pixels / z, -pixels * (y / z).clamp(-limit, limit) / z], 1),
        ],
        1,
    )  # (N, 2, 3)
    spread = affine @ camera_rotation @ rotation_matrices(rotations) * scales[:, None]
    covariance = spread @ spread.mT  # (N, 2, 2)
    before = _determinant(covariance)
    covariance = covariance + KERNEL_SIZE * torch.eye(2, dtype=z.dtype)
    after = _determinant(covariance)
    gain = torch.sqrt(before / (after + 1e-6) + 1e-6)
    gain = torch.where((before <= 1e-6) | (after <= 1e-6), 0.0, gain)
    middle = (covariance[:, 0, 0] + covariance[:, 1, 1]) / 2
    largest = middle + torch.sqrt((middle**2 - after).clamp(min=0.1))
    conic = torch.stack([covariance[:, 1, 1], -covariance[:, 0, 1], covariance[:, 0, 0]], 1)
    clip = 2 * focal * torch.stack([x / z, y / z], 1)
    order = torch.argsort(z, stable=True)
    order = order[z[order] > 0.2]
    return Splats(
        order=order,
        center=(((clip + 1) * size - 1) / 2)[order],
        conic=(conic / after[:, None])[order],
        opacity=(opacities * gain)[order],
        radius=torch.ceil(3 * torch.sqrt(largest))[order],
        depth=z[order],
    )


@one_thread()
def draw(splats: Splats, colors: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """colors (N, 3) -> picture over black (S, S, 3) and its opacity (S, S); S a multiple of 16."""
    colors = colors[splats.order]
    image = torch.zeros(size, size, 3, dtype=colors.dtype)
    alpha = torch.zeros(size, size, dtype=colors.dtype)
    low = torch.floor((splats.center - splats.radius[:, None]) / TILE)
    high = torch.floor((splats.center + splats.radius[:, None] + TILE - 1) / TILE)
    offsets = torch.cartesian_prod(torch.arange(TILE), torch.arange(TILE)).to(colors.dtype)
    for row in range(size // TILE):
        in_row = torch.nonzero((low[:, 1] <= row) & (row < high[:, 1]))[:, 0]
        for column in range(size // TILE):
            here = in_row[(low[in_row, 0] <= column) & (column < high[in_row, 0])]
            if not len(here):
                continue
            pixels = offsets + torch.tensor([row * TILE, column * TILE])
            color, transparency = _composite(splats, colors, here, pixels)
            tile = slice(row * TILE, (row + 1) * TILE), slice(column * TILE, (column + 1) * TILE)
            image[tile] = color.reshape(TILE, TILE, 3)
            alpha[tile] = 1 - transparency.reshape(TILE, TILE)
    return image, alpha


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """(N, 4) wxyz of any length -> (N, 3, 3)."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def opencv_camera(world_to_camera: np.ndarray) -> Tensor:
    """A camera whose axes are OpenGL's (x right, y up, z backward) -> the same with OpenCV's."""
    return torch.from_numpy(np.diag([1.0, -1.0, -1.0, 1.0]) @ world_to_camera).float()


def _determinant(matrices: Tensor) -> Tensor:
    a, b, c, d = matrices.flatten(1).unbind(1)
    return (a * d - b * c).clamp(min=1e-6)


def _composite(
    splats: Splats, colors: Tensor, here: Tensor, pixels: Tensor
) -> tuple[Tensor, Tensor]:
    """Gaussians `here`, front to back, at pixels (256, 2) row, column -> colours, transparency."""
    color = torch.zeros(len(pixels), 3, dtype=colors.dtype)
    transparency = torch.ones(len(pixels), 1, dtype=colors.dtype)
    unfilled = torch.arange(len(pixels))
    for some in here.split(_AT_ONCE):
        dx = pixels[unfilled, 1:] - splats.center[some, 0]  # (pixels, n)
        dy = pixels[unfilled, :1] - splats.center[some, 1]
        xx, xy, yy = splats.conic[some].unbind(1)
        power = dx * (-0.5 * xx * dx - xy * dy) - 0.5 * yy * dy * dy
        alpha = (splats.opacity[some] * torch.exp(power)).clamp(max=0.99)
        alpha[alpha < 1 / 255] = 0
        before = transparency[unfilled]
        behind = before * torch.cumprod(1 - alpha, 1)
        in_front = torch.cat([before, behind[:, :-1]], 1)
        is_seen = behind >= 1e-4
        color[unfilled] += (in_front * alpha * is_seen) @ colors[some]
        transparency[unfilled] = torch.where(is_seen, behind, before).amin(1, keepdim=True)
        unfilled = unfilled[is_seen[:, -1]]
        if not len(unfilled):
            break
    return color, transparency[:, 0]
