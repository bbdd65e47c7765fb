"""An appearance made of a formula: what a baked texture can be compared with, point by point.

Waves of three lengths, from half of the object down to a twentieth, in every channel: about as much
change per length as a photograph has. P points.
"""

from __future__ import annotations

import numpy as np

from onelook.surface import Material

Array = np.ndarray

WAVELENGTHS = (0.5, 0.17, 0.05)  # object units; the object's longest side is 1
STRENGTHS = (0.24, 0.12, 0.04)  # of 0..1, sRGB-encoded


class PaintedField:
    """Colour and roughness in space; an `Appearance` that ignores the normals."""

    def __init__(self, seed: int = 11):
        rng = np.random.Generator(np.random.PCG64(seed))
        directions = rng.standard_normal((4, len(WAVELENGTHS), 3))  # colour channels, roughness
        directions /= np.linalg.norm(directions, axis=2, keepdims=True)
        waves = directions * (2 * np.pi / np.array(WAVELENGTHS)[:, None])
        self._waves = waves.reshape(-1, 3).astype(np.float32)
        self._phases = rng.uniform(0, 2 * np.pi, len(self._waves)).astype(np.float32)

    def sample(self, points: Array, normals: Array) -> Material:
        """points (P, 3), canonical space -> Material of P points."""
        count = len(points)
        heights = points.astype(np.float32) @ self._waves.T  # (P, 4 * waves)
        np.sin(np.add(heights, self._phases, out=heights), out=heights)
        values = heights.reshape(count, 4, -1) @ np.float32(STRENGTHS) + np.float32(0.5)  # (P, 4)
        return Material(
            base_color=np.ascontiguousarray(values[:, :3]),
            alpha=np.ones(count, np.float32),
            metallic=np.zeros(count, np.float32),
            roughness=np.ascontiguousarray(values[:, 3]),
        )
