"""What faces ask their neighbours: the kernels behind `parts`."""

from __future__ import annotations

import warp as wp

Feature = wp.types.vector(length=6, dtype=wp.float32)


@wp.kernel
def average_normals(
    first: int,
    neighbours: wp.array(dtype=wp.int32, ndim=2),
    now: wp.array(dtype=wp.vec3),
    after: wp.array(dtype=wp.vec3),
):
    i = first + wp.tid()
    total = now[i]
    for k in range(3):
        total += now[neighbours[i, k]]
    after[i] = total * 0.25


@wp.kernel
def join_nearest_part(
    first: int,
    neighbours: wp.array(dtype=wp.int32, ndim=2),
    features: wp.array(dtype=Feature),
    middles: wp.array(dtype=Feature),
    border_cost: float,
    now: wp.array(dtype=wp.int32),
    after: wp.array(dtype=wp.int32),
):
    i = first + wp.tid()
    best = now[i]
    least = wp.float32(wp.inf)
    for choice in range(-1, 3):
        part = now[i]
        if choice >= 0:
            part = now[neighbours[i, choice]]
        if choice < 0 or part != now[i]:
            offset = features[i] - middles[part]
            cost = wp.dot(offset, offset)
            for k in range(3):
                if now[neighbours[i, k]] != part:
                    cost += border_cost
            if cost < least:
                least = cost
                best = part
    after[i] = best
