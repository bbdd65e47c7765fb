"""From a backend's own frame to the canonical space of every Surface, and back.

N points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class CanonicalFrame:
    """canonical = scale * (rotation @ own - middle): centred, longest side 1.

    rotation (3, 3): own axes -> +Y up, front +Z, right-handed. middle (3,): of the turned object.
    """

    rotation: Array
    middle: Array
    scale: float

    @staticmethod
    def around(points: Array, rotation: Array) -> CanonicalFrame:
        """The frame that makes `points` (N, 3), own frame, span 1 around the origin."""
        rotation = np.asarray(rotation, np.float32)
        turned = points @ rotation.T
        low, high = turned.min(axis=0), turned.max(axis=0)
        return CanonicalFrame(rotation, (low + high) / 2, float(1 / (high - low).max()))

    def enter(self, points: Array) -> Array:
        """Own frame -> canonical space: (N, 3) -> (N, 3) float32."""
        return (self.scale * (points @ self.rotation.T - self.middle)).astype(np.float32)

    def leave(self, points: Array) -> Array:
        """Canonical space -> own frame: (N, 3) -> (N, 3) float32."""
        return ((points / self.scale + self.middle) @ self.rotation).astype(np.float32)
