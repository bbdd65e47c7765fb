"""Warp kernel of the contact shadow."""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def occlude_floor(
    first: int,
    patches: wp.array(dtype=wp.vec3),
    areas: wp.array(dtype=wp.vec3),
    is_closed: bool,
    ground: float,
    reach: float,
    shadow: wp.array2d(dtype=wp.float32),
):
    """One item: a floor point -> the part of its sky that the patches cover, cosine-weighted.

    The form factor of a patch of area vector A at direction d (unit) and distance r from a floor
    point is (d . up) (-d . A) / (pi r^2). A closed object is seen by the patches that face the
    point; an open one by both sides of every patch.
    """
    item = first + wp.tid()
    size = shadow.shape[0]
    row, column = item // size, item % size
    x = ((float(column) + 0.5) / float(size) * 2.0 - 1.0) * reach
    z = ((float(row) + 0.5) / float(size) * 2.0 - 1.0) * reach
    fade = wp.min(1.6 * (1.0 - wp.sqrt(x * x + z * z) / reach), 1.0)
    if fade <= 0.0:
        return
    covered = wp.float32(0.0)
    for i in range(patches.shape[0]):
        offset = patches[i] - wp.vec3(x, ground, z)
        # a patch is no point: right above the floor point it covers all, not nothing
        radius2 = wp.length(areas[i]) / 3.1415927
        aside = wp.sqrt(offset[0] * offset[0] + offset[2] * offset[2]) + 1.0e-9
        inward = wp.clamp(2.0 - 2.0 * wp.sqrt(radius2) / aside, 0.0, 1.0)
        offset = wp.vec3(offset[0] * inward, wp.max(offset[1], 1.0e-4), offset[2] * inward)
        facing = -wp.dot(offset, areas[i])
        if not is_closed:
            facing = wp.abs(facing)
        if facing > 0.0:
            r2 = wp.dot(offset, offset)
            covered += offset[1] * facing / (3.1415927 * r2 * (r2 + radius2))
    shadow[row, column] = wp.min(covered, 1.0) * fade * fade * (3.0 - 2.0 * fade)
