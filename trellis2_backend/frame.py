"""Where TRELLIS.2's cube lies in canonical space.

TRELLIS.2 works in [-0.5, 0.5]^3 with +Z up and the front facing -Y; canonical space has +Y up, the
front facing +Z, the object centred and its longest side 1. N vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

TO_CANONICAL = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # (x, z, -y)


@dataclass(frozen=True, eq=False)
class Frame:
    """canonical = scale * (TO_CANONICAL @ point - middle); middle (3,) float64, canonical axes."""

    scale: float
    middle: Array

    @staticmethod
    def fitting(vertices: Array) -> Frame:
        """The frame that centres vertices (N, 3), TRELLIS's axes, and makes the longest side 1.

        A single point keeps its size.
        """
        turned = vertices.astype(np.float64) @ TO_CANONICAL.T
        low, high = turned.min(0), turned.max(0)
        return Frame(1 / (float((high - low).max()) or 1.0), (low + high) / 2)

    def to_canonical(self, vertices: Array) -> Array:
        """vertices (N, 3), TRELLIS's axes -> (N, 3) float32, canonical space."""
        turned = vertices.astype(np.float64) @ TO_CANONICAL.T
        return (self.scale * (turned - self.middle)).astype(np.float32)

    def from_canonical(self, points: Array) -> Array:
        """points (N, 3), canonical space -> (N, 3) float64, TRELLIS's axes."""
        return (points.astype(np.float64) / self.scale + self.middle) @ TO_CANONICAL

    def voxels_from_canonical(self, resolution: int) -> Array:
        """Canonical points -> voxels of a grid of `resolution`: (4, 4) float64, homogeneous.

        Voxel i covers i to i + 1 on each axis.
        """
        matrix = np.eye(4)
        matrix[:3, :3] = resolution * TO_CANONICAL.T / self.scale
        matrix[:3, 3] = resolution * (TO_CANONICAL.T @ self.middle + 0.5)
        return matrix
