"""Lay a mesh out in a square texture: UVs without overlap, evenly dense, padded between charts.

N vertices, M faces, K vertices after cutting along seams.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.charts import make_charts
from onelook.asset.pack import pack_charts
from onelook.errors import SurfaceError

Array = np.ndarray


@dataclass(frozen=True)
class Unwrapped:
    """A mesh cut along its UV seams.

    vertices_index (K,) int32: the source vertex of each vertex; faces (M, 3) int32 into those K, in
    the order and winding of the input; uvs (K, 2) float32 0..1, origin at the top left; chart (M,)
    int32: the chart of each face. padding: untouched texels between charts. coverage: share of the
    texture that the faces cover.
    """

    vertices_index: Array
    faces: Array
    uvs: Array
    chart: Array
    padding: int
    coverage: float


def unwrap(
    vertices: Array, faces: Array, texture_size: int, *, padding: int | None = None
) -> Unwrapped:
    """UVs for a texture of exactly texture_size x texture_size texels.

    vertices (N, 3) float, faces (M, 3) int. padding: texels that no chart touches between any two
    charts; None for 2 and one more per 1024 texels from 3072 on; less where the charts would
    otherwise cover under a third of the texture. Texels per unit of surface are the same for every
    chart. Raises SurfaceError when there is no face, ValueError for a texture size under 1.
    """
    if not len(faces):
        raise SurfaceError("the surface has no faces left to unwrap")
    if texture_size < 1:
        raise ValueError(f"texture_size must be at least 1, got {texture_size}")
    if padding is None:
        padding = max(2, texture_size // 1024)
    charts = make_charts(vertices, faces)
    packing = pack_charts(charts, texture_size, padding)
    corners = packing.uvs[charts.faces].astype(np.float64)
    d1, d2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    coverage = float(np.abs(d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]).sum() / 2)
    return Unwrapped(
        vertices_index=charts.vertices_index,
        faces=charts.faces,
        uvs=packing.uvs,
        chart=charts.chart,
        padding=packing.padding,
        coverage=coverage,
    )
