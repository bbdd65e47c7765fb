"""Inflate a silhouette: a height for every point inside it, zero on its outline.

The height comes from the equation laplace(u) = -4 with u = 0 on the outline: for a disc u is
R^2 - r^2, so sqrt(u) is a hemisphere; across a long strip of half-width w it is an ellipse of
height sqrt(2) w. So u grows with the local width, is smooth everywhere and meets the rim upright.
Flattening u keeps broad shapes from becoming balls, and leaves narrow ones round.

The boundary is met between grid points (Gibou et al., J. Comput. Phys. 176, 2002: the unknown
beyond the outline is replaced by 0 at the true distance). Solved from coarse to fine grids with
conjugate gradients as smoother (Bornemann and Deuflhard, Numer. Math. 75, 1996).

J, I grid rows (upward) and columns; lengths in cells.
"""

from __future__ import annotations

import cv2
import numpy as np

from relief_backend.config import ReliefConfig
from relief_backend.silhouette import Silhouette

Array = np.ndarray

_COARSEST = 24  # grid points on the shorter side where the cascade starts


def inflate(silhouette: Silhouette, config: ReliefConfig) -> Array:
    """Outline -> squared half-thickness (J, I) float32 at the grid points, in cells squared.

    Positive inside, continued smoothly below zero outside, so that it crosses zero on the outline.
    """
    level = silhouette.level
    poisson = _extend(solve_poisson(level), level)
    bound = config.flattening**2 * np.sqrt(poisson.max()) * silhouette.side / 2
    poisson = np.maximum(poisson, -0.5 * bound)
    return (config.roundness**2 * poisson / (1 + poisson / bound)).astype(np.float32)


def solve_poisson(level: Array) -> Array:
    """level (J, I), positive inside -> u (J, I) float32 with laplace(u) = -4; 0 outside."""
    levels = [level]
    while min(levels[-1].shape) > 2 * _COARSEST:
        levels.append(levels[-1][::2, ::2])
    solution = np.zeros_like(levels[-1], np.float32)
    for depth in reversed(range(len(levels))):
        if solution.shape != levels[depth].shape:
            solution = _refine(solution, levels[depth].shape)
        solution = _relax(solution, levels[depth], spacing=2.0**depth)
    return solution


def _refine(coarse: Array, shape: tuple[int, int]) -> Array:
    """Linear interpolation to a grid of half the spacing; every second point is kept."""
    rows = np.empty((shape[0], coarse.shape[1]), np.float32)
    rows[::2] = coarse
    rows[1::2] = coarse[: shape[0] // 2]
    rows[1:-1:2] = 0.5 * (rows[0:-2:2] + rows[2::2])
    fine = np.empty(shape, np.float32)
    fine[:, ::2] = rows
    fine[:, 1::2] = rows[:, : shape[1] // 2]
    fine[:, 1:-1:2] = 0.5 * (fine[:, 0:-2:2] + fine[:, 2::2])
    return fine


_NEIGHBOURS = (  # (points that have this neighbour, the neighbours)
    (np.s_[1:, :], np.s_[:-1, :]),
    (np.s_[:-1, :], np.s_[1:, :]),
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[:, :-1], np.s_[:, 1:]),
)


def _relax(
    start: Array, level: Array, spacing: float, tolerance: float = 1e-3, steps: int = 150
) -> Array:
    """Conjugate gradients on one grid until the residual is `tolerance` of the right-hand side."""
    inside = (level > 0).astype(np.float32)
    diagonal = np.full_like(inside, 1e-6)
    for here, there in _NEIGHBOURS:
        # Share of the way to the neighbour at which the outline is met; 1 where it is not.
        within, beyond = np.maximum(level[here], 1e-3), np.minimum(level[there], -1e-3)
        way = np.where(level[there] > 0, 1.0, within / (within - beyond))
        diagonal[here] += 1.0 / np.maximum(way, 0.01)
    inverse = inside / diagonal

    def apply(u: Array) -> Array:
        result = diagonal * u
        for here, there in _NEIGHBOURS:
            result[here] -= u[there]
        return result * inside

    right = 4.0 * spacing**2 * inside
    solution = start * inside
    residual = right - apply(solution)
    goal = tolerance**2 * _dot(right, inverse * right)
    scaled = inverse * residual
    direction, energy = scaled, _dot(residual, scaled)
    for _ in range(steps):
        if energy <= goal:
            break
        image = apply(direction)
        length = energy / _dot(direction, image)
        solution += length * direction
        residual -= length * image
        scaled = inverse * residual
        energy, previous = _dot(residual, scaled), energy
        direction = scaled + (energy / previous) * direction
    return solution


def _dot(a: Array, b: Array) -> np.float32:
    """Not BLAS: its order of summation may depend on the number of threads."""
    return np.sum(a * b)


def _extend(poisson: Array, level: Array) -> Array:
    """Continue u beyond the outline as slope * d - 2 d^2, d the distance from the outline.

    That is what laplace(u) = -4 leaves of a straight outline. The slope is the local least-squares
    fit of the same over nearby inside points.
    """
    inside = np.maximum(level, 0)
    product, square = (
        cv2.GaussianBlur(field.astype(np.float32), (0, 0), 1.5)
        for field in (inside * (poisson + 2 * inside**2), inside * inside)
    )
    slope = product / np.maximum(square, 1e-6)
    slope = np.where(square > 1e-6, slope, slope[level > 0].mean())
    return np.where(level > 0, poisson, slope * level - 2 * level**2)
