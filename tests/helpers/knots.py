"""A closed, bumpy tube around a trefoil: a mesh that no single chart can hold."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def trefoil(along: int, around: int, roughness: float = 1.0) -> tuple[Array, Array]:
    """2 * along * around outward faces, longest side about 1; roughness 0 gives a smooth tube."""
    t = np.arange(along)[:, None] * (2 * np.pi / along)
    a = np.arange(around)[None, :] * (2 * np.pi / around)
    angle = t[:, 0]
    centre = np.stack(
        [
            np.sin(angle) + 2 * np.sin(2 * angle),
            np.cos(angle) - 2 * np.cos(2 * angle),
            -np.sin(3 * angle),
        ],
        axis=1,
    )
    tangent = np.roll(centre, -1, axis=0) - np.roll(centre, 1, axis=0)
    side = np.cross(tangent, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, tangent)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    grain = np.random.default_rng(3).standard_normal((along, around))
    bumps = 0.06 * np.sin(9 * a + 5 * t) + 0.04 * np.sin(30 * t - 2 * a) + 0.004 * grain
    radius = 0.5 * (1 + roughness * bumps)
    across = np.cos(a)[..., None] * side[:, None] + np.sin(a)[..., None] * up[:, None]
    vertices = (centre[:, None] + radius[..., None] * across).reshape(-1, 3) / 7.4
    i, j = np.meshgrid(np.arange(along), np.arange(around), indexing="ij")
    after_i, after_j = (i + 1) % along, (j + 1) % around
    p, q = i * around + j, after_i * around + j
    r, s = after_i * around + after_j, i * around + after_j
    faces = np.stack([p, q, r, p, r, s], axis=-1).reshape(-1, 3)
    return vertices.astype(np.float32), faces.astype(np.int32)
