"""The numbers of the relief backend, complete where written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReliefConfig:
    """Lengths that name no unit are shares of the silhouette's longest side.

    face_target: faces of the raw mesh; sets the grid's resolution within cells_min..cells_max.
    cells_finest, faces_most: how far the grid may be refined where the silhouette is thin.
    outline_loss: how much of the picture's outline the grid may lose before it is refined.
    smallest_part: parts under this share of the largest part's area are dropped.
    roundness: thickness of narrow parts as a share of the inflated height; 1 / sqrt(2) makes the
    cross-section of a long narrow part a circle.
    flattening: how soon broad parts stop growing; smaller is flatter.
    detail_height, detail_fine, detail_coarse: height of the shading relief, and the band it is
    taken from (two standard deviations).
    back_blurs: standard deviations of the picture's blur, from the rim to the middle of the back.
    """

    face_target: int = 170_000
    cells_min: int = 160
    cells_max: int = 384
    cells_finest: int = 1024
    faces_most: int = 600_000
    outline_loss: float = 0.01
    smallest_part: float = 0.002
    roundness: float = 0.75
    flattening: float = 0.65
    detail_height: float = 0.003
    detail_fine: float = 0.010
    detail_coarse: float = 0.040
    back_blurs: tuple[float, ...] = (0.006, 0.02, 0.06)
    roughness: float = 0.9
