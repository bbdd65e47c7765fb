"""nvdiffrast as an engine of the rasteriser: only on CUDA, only where it is installed.

It needs torch, and its licence does not allow commercial use, so it is never chosen unasked. Its
pictures start at the bottom row, number faces from 1, and round positions in their own way.
"""

from __future__ import annotations

import numpy as np

from onelook.render.rasterize import Raster

Array = np.ndarray


def rasterize_nvdiffrast(
    clip_positions: Array,
    faces: Array,
    width: int,
    height: int,
    *,
    cull: bool = False,
    device: str | None = None,
) -> Raster:
    """The same arguments and results as `rasterize`; raises ImportError where it is missing."""
    import nvdiffrast.torch as nvdiffrast
    import torch

    device = device or "cuda:0"
    faces = np.ascontiguousarray(faces, np.int32)
    numbers = np.arange(len(faces), dtype=np.int32)
    if cull:
        numbers = numbers[_is_front(clip_positions, faces)]
    context = nvdiffrast.RasterizeCudaContext(device=device)
    positions = torch.as_tensor(clip_positions, dtype=torch.float32, device=device)
    triangles = torch.as_tensor(faces[numbers], device=device)
    picture, _ = nvdiffrast.rasterize(
        context, positions[None].contiguous(), triangles, (height, width), grad_db=False
    )  # (1, H, W, 4): weights of the first two vertices, z / w, face number + 1
    picture = picture[0].flip(0).cpu().numpy()
    hit = picture[..., 3] > 0
    face_ids = np.full((height, width), -1, np.int32)
    face_ids[hit] = numbers[picture[..., 3][hit].astype(np.int64) - 1]
    return Raster(
        face_ids,
        np.where(hit[..., None], picture[..., :2], 0).astype(np.float32),
        np.where(hit, picture[..., 2] * 0.5 + 0.5, 1).astype(np.float32),
    )


def _is_front(clip_positions: Array, faces: Array) -> Array:
    """Which faces turn counter-clockwise in the picture; (M,) bool."""
    pixels = clip_positions[:, :2] / np.maximum(clip_positions[:, 3:], 1e-9)
    a, b, c = (pixels[faces[:, i]] for i in range(3))
    edge, other = b - a, c - a
    return edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0] > 0
