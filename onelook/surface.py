"""Surface: what every backend returns; Appearance: what answers for its colours.

Canonical space of every Surface: right-handed, +Y up, the side the picture shows faces +Z (glTF's
own convention), centred at the origin, longest side 1.

N vertices or points, M faces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from onelook.errors import SurfaceError

Array = np.ndarray


@dataclass(frozen=True)
class Material:
    """Material of N points, as glTF's metallic-roughness model has it.

    base_color (N, 3) float32 0..1, sRGB-encoded; alpha, metallic, roughness (N,) float32 0..1,
    linear.
    """

    base_color: Array
    alpha: Array
    metallic: Array
    roughness: Array

    @staticmethod
    def matte(base_color: Array, roughness: float = 0.9) -> Material:
        """An opaque non-metal with these colours: (N, 3) -> Material of N points."""
        count = len(base_color)
        return Material(
            base_color=np.clip(base_color, 0.0, 1.0).astype(np.float32),
            alpha=np.ones(count, np.float32),
            metallic=np.zeros(count, np.float32),
            roughness=np.full(count, roughness, np.float32),
        )


class Appearance(Protocol):
    """Something that answers "which material has this point of the surface?"."""

    def sample(self, points: Array, normals: Array) -> Material:
        """points and unit normals (N, 3) float32, canonical space -> Material of N points."""
        ...


@dataclass(frozen=True)
class Surface:
    """Triangles in canonical space and their appearance.

    vertices (N, 3) float32; faces (M, 3) int32, counter-clockwise seen from outside.
    attachments: further files the backend can write, by the names of the engine's ATTACHMENTS.
    """

    vertices: Array
    faces: Array
    appearance: Appearance
    attachments: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise SurfaceError(f"vertices must have shape (N, 3), got {self.vertices.shape}")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise SurfaceError(f"faces must have shape (M, 3), got {self.faces.shape}")
        if not len(self.faces):
            raise SurfaceError("the surface has no faces")
