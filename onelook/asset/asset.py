"""Asset: a mesh ready for a game engine, with baked textures; ColoredMesh: with vertex colours.

N vertices, M faces, T texture size in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Textures:
    """Baked images of T x T pixels, row 0 at the top (glTF's UV origin).

    base_color (T, T, 4) uint8, sRGB with straight linear alpha.
    metallic_roughness (T, T, 2) uint8, linear, metallic first; None where both are constant, and
    then the two factors hold the constants.
    normal (T, T, 3) uint8, tangent space (glTF: +X right, +Y up), or None.
    """

    base_color: Array
    metallic_roughness: Array | None = None
    normal: Array | None = None
    metallic_factor: float = 0.0
    roughness_factor: float = 1.0


@dataclass(frozen=True)
class Asset:
    """A clean, simplified, UV-mapped mesh in canonical space (+Y up, front +Z) with its textures.

    vertices, normals (N, 3) float32, normals of unit length; uvs (N, 2) float32 0..1, origin at the
    top left; faces (M, 3) int32, counter-clockwise. Vertices are repeated along UV seams.
    is_closed: every edge of the welded mesh has two faces. Where not, the material is
    double-sided.
    alpha_mode: glTF's "OPAQUE", "MASK" or "BLEND".
    """

    vertices: Array
    normals: Array
    uvs: Array
    faces: Array
    textures: Textures
    is_closed: bool = True
    alpha_mode: str = "OPAQUE"
    extras: dict = field(default_factory=dict)


@dataclass(frozen=True)
class ColoredMesh:
    """A clean, simplified mesh in canonical space with a colour at each vertex, without UVs.

    vertices, normals (N, 3) float32, normals of unit length; faces (M, 3) int32, counter-clockwise;
    colors (N, 4) uint8, sRGB with straight linear alpha. is_closed: every edge has two faces.
    """

    vertices: Array
    normals: Array
    faces: Array
    colors: Array
    is_closed: bool = True
