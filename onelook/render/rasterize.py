"""The rasteriser's one door: clip positions and faces in, the visible face of every pixel out.

Three engines: warp on the CPU, warp on CUDA, and nvdiffrast where it is installed and asked for.
The first two and the plain twin in raster_reference.py give identical faces.

N vertices, M faces, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
LARGEST_SIDE = 16384  # pixels; keeps positions inside the range of raster_kernels.GUARD


@dataclass(frozen=True)
class Raster:
    """What each pixel centre sees.

    face_ids (H, W) int32, -1 where nothing. barycentrics (H, W, 2) float32: perspective-correct
    weights of the face's first and second vertex; the third's is 1 minus both. depth (H, W)
    float32: 0 near .. 1 far, 1 where nothing. Row 0 is the top.
    """

    face_ids: Array
    barycentrics: Array
    depth: Array


def rasterize(
    clip_positions: Array,
    faces: Array,
    width: int,
    height: int,
    *,
    cull: bool = False,
    device: str | None = None,
    engine: str = "warp",
) -> Raster:
    """Find the nearest face at every pixel centre.

    clip_positions (N, 4) float32, OpenGL clip space; faces (M, 3) int; width and height in pixels,
    at most 16384. cull drops faces that turn clockwise on the screen. engine "nvdiffrast" needs
    CUDA and that package; its subpixel rounding differs, so single pixels on edges may too.

    Nothing is clipped at the near plane: a face is left out when a vertex lies behind the camera or
    more than 32768 pixels from the picture's corner. Ties go to the lower face number.
    Raises ValueError for sizes out of range and for an unknown engine.
    """
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise ValueError(
            f"the picture must be 1 to {LARGEST_SIDE} pixels wide and high, got {width} x {height}"
        )
    if engine == "nvdiffrast":
        from onelook.render.raster_nvdiffrast import rasterize_nvdiffrast

        return rasterize_nvdiffrast(clip_positions, faces, width, height, cull=cull, device=device)
    if engine != "warp":
        raise ValueError(f"engine must be 'warp' or 'nvdiffrast', got {engine!r}")
    return _rasterize_warp(clip_positions, faces, width, height, cull, device)


def _rasterize_warp(
    clip_positions: Array, faces: Array, width: int, height: int, cull: bool, device: str | None
) -> Raster:
    import warp as wp

    from onelook.kernels import default_device, launch
    from onelook.render import raster_kernels as kernels
    from onelook.render.raster_buffers import make_buffers

    device = device or default_device()
    clip = wp.array(np.ascontiguousarray(clip_positions, np.float32), dtype=wp.vec4, device=device)
    face_array = wp.array(np.ascontiguousarray(faces, np.int32), dtype=wp.vec3i, device=device)
    screen = kernels.screen_array(len(clip), device)
    launch(kernels.project_clip, len(clip), [clip, width, height, screen], device)
    buffers = make_buffers(len(faces), width, height, device)
    buffers.draw(screen, face_array, cull)
    barycentrics = wp.empty((height, width), dtype=wp.vec2, device=device)
    launch(
        kernels.weigh_pixels,
        width * height,
        [screen, face_array, buffers.face_ids, barycentrics],
        device,
    )
    return Raster(buffers.face_ids.numpy(), barycentrics.numpy(), buffers.depth.numpy())
