"""The studio the pictures are taken in: soft boxes and a dome, made from formulas, no asset file.

Shading takes two things from it, as split-sum image-based lighting does (Karis, "Real Shading in
Unreal Engine 4", 2013): the irradiance of every normal, as nine spherical harmonics (Ramamoorthi
and Hanrahan, "An Efficient Representation for Irradiance Environment Maps", 2001), and the
radiance of every reflection, blurred by the GGX lobe of a few roughnesses.

Studio space turns with the camera: +Y up, +Z towards the camera's side. The blurred levels are
stored as octahedral squares (Cigolle et al., "A Survey of Efficient Representations for Independent
Unit Vectors", 2014): cheaper to look up than latitude and longitude, and without poles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

Array = np.ndarray
Radiance = Callable[[Array], Array]  # unit directions (..., 3) -> linear colour (..., 3)
LEVEL_SIZES = (192, 96, 48, 32, 32, 32)  # pixels; perceptual roughness 0, 0.2, .. 1
_LOBE_SAMPLES = 64  # directions in the narrowest lobe
_SOURCE_SIZE = 64  # the others look at this many pixels a side


@dataclass(frozen=True, eq=False)
class Environment:
    """Prefiltered light.

    irradiance (9, 3) float32: spherical-harmonic coefficients of irradiance / pi, in the order and
    with the basis functions of `harmonics`, so that a uniform environment of 1 gives 1 everywhere.
    levels: one (S + 2, S + 2, 3) float32 octahedral square per roughness, with a border of one
    pixel that holds the neighbours across the square's edges.
    """

    irradiance: Array
    levels: tuple[Array, ...]


@dataclass(frozen=True)
class _SoftBox:
    """A rectangular light with soft edges; angles in degrees, azimuth 90 is +X."""

    azimuth: float
    elevation: float
    half_width: float
    half_height: float
    softness: float
    color: tuple[float, float, float]

    def radiance(self, directions: Array) -> Array:
        azimuth, elevation = math.radians(self.azimuth), math.radians(self.elevation)
        right = np.array([math.cos(azimuth), 0.0, -math.sin(azimuth)])
        forward = np.array(
            [
                math.sin(azimuth) * math.cos(elevation),
                math.sin(elevation),
                math.cos(azimuth) * math.cos(elevation),
            ]
        )
        along = directions @ forward.astype(np.float32)
        inside = along > 0
        depth = np.where(inside, along, np.float32(1))
        axes = ((right, self.half_width), (np.cross(forward, right), self.half_height))
        for axis, half in axes:  # on a plane at distance 1 the box is a rectangle
            offset = np.abs(directions @ axis.astype(np.float32)) / depth
            edge, soft = math.tan(math.radians(half)), math.tan(math.radians(self.softness))
            inside = inside * _smooth((np.float32(edge) - offset) / np.float32(soft) + 0.5)
        return inside[..., None] * np.array(self.color, np.float32)


_SOFT_BOXES = (
    _SoftBox(-40, 38, 25, 22, 8, (5.6, 5.35, 5.0)),  # key: large, front left, slightly warm
    _SoftBox(52, 14, 18, 30, 12, (1.6, 1.7, 1.85)),  # fill: front right, slightly cool
    _SoftBox(142, 18, 9, 34, 6, (4.4, 4.7, 5.1)),  # rim: tall strips behind, cool
    _SoftBox(-140, 16, 9, 34, 6, (3.8, 3.95, 4.2)),
    _SoftBox(0, 86, 34, 24, 14, (1.0, 1.0, 1.0)),  # overhead
)


def studio_radiance(directions: Array) -> Array:
    """Radiance of the studio: unit directions (..., 3) float32 -> linear colour (..., 3)."""
    height = directions[..., 1:2]
    sky = np.array([0.70, 0.72, 0.75], np.float32)
    horizon = np.array([0.72, 0.72, 0.72], np.float32)
    ground = np.array([0.60, 0.58, 0.56], np.float32)  # the bounce of a light floor, warm
    upper = horizon + (sky - horizon) * _smooth(height)
    light = np.where(height > 0, upper, ground + (horizon - ground) * _smooth(1 + 4 * height))
    for box in _SOFT_BOXES:
        light = light + box.radiance(directions)
    return light * np.float32(_EXPOSURE)


_EXPOSURE = 0.74  # white, matte and facing the camera comes out at about 1


@cache
def studio() -> Environment:
    """The prefiltered studio; computed once per process."""
    return prefilter(studio_radiance)


def prefilter(radiance: Radiance) -> Environment:
    """Any light that is a function of direction, made ready for shading."""
    levels = tuple(
        _with_border(_blurred(radiance, size, level / (len(LEVEL_SIZES) - 1)))
        for level, size in enumerate(LEVEL_SIZES)
    )
    return Environment(_irradiance(radiance), levels)


def harmonics(directions: Array) -> Array:
    """The first nine real spherical harmonics: unit directions (..., 3) -> (..., 9)."""
    x, y, z = np.moveaxis(directions, -1, 0)
    one = np.ones_like(x)
    return np.stack(
        [
            0.282095 * one,
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - one),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        axis=-1,
    )


def octahedral_directions(size: int) -> Array:
    """Unit directions of the pixel centres of an octahedral square, (size, size, 3) float32."""
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, z = np.meshgrid(centre, centre)  # columns are x, rows are z
    y = 1 - abs(x) - abs(z)
    fold = np.maximum(-y, 0)
    x, z = x - np.copysign(fold, x), z - np.copysign(fold, z)
    directions = np.stack([x, y, z], axis=-1)
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def _smooth(x: Array) -> Array:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _irradiance(radiance: Radiance) -> Array:
    """Project onto spherical harmonics and convolve with the clamped cosine, over pi."""
    count = 16384
    index = np.arange(count) + 0.5  # a Fibonacci sphere: equal areas
    height = 1 - 2 * index / count
    turn = index * math.pi * (3 - math.sqrt(5))
    ring = np.sqrt(1 - height**2)
    directions = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], -1)
    directions = directions.astype(np.float32)
    projected = harmonics(directions).T @ radiance(directions) * (4 * math.pi / count)  # (9, 3)
    cosine = np.array([1.0, 2 / 3, 2 / 3, 2 / 3, 0.25, 0.25, 0.25, 0.25, 0.25])  # A_l / pi
    return (projected * cosine[:, None]).astype(np.float32)


def _blurred(radiance: Radiance, size: int, roughness: float) -> Array:
    """Radiance as a GGX reflection sees it, with view = normal = reflection; (size, size, 3).

    Karis 2013: light from l counts with D(half vector) (n . l); alpha = roughness squared.
    """
    directions = octahedral_directions(size)  # (S, S, 3)
    if roughness == 0:
        return radiance(directions).astype(np.float32)
    if roughness < 0.3:
        return _blurred_narrow(radiance, directions, roughness)
    sources = octahedral_directions(_SOURCE_SIZE).reshape(-1, 3)
    # the square's pixels differ in solid angle: by the cube of the sum-norm of their direction
    weighted = radiance(sources) * np.abs(sources).sum(axis=1, keepdims=True) ** 3  # (L, 3)
    cosine = directions.reshape(-1, 3) @ sources.T  # (S * S, L)
    alpha2 = np.float32(roughness**4)
    half_cosine2 = (1 + cosine) / 2
    lobe = np.maximum(cosine, 0) / (half_cosine2 * (alpha2 - 1) + 1) ** 2
    total = lobe @ np.abs(sources).sum(axis=1) ** 3
    return (lobe @ weighted / total[:, None]).reshape(size, size, 3).astype(np.float32)


def _blurred_narrow(radiance: Radiance, directions: Array, roughness: float) -> Array:
    """The same for a narrow lobe: half vectors drawn from the GGX distribution."""
    index = np.arange(_LOBE_SAMPLES)
    first = (index + 0.5) / _LOBE_SAMPLES
    turn = index * math.pi * (3 - math.sqrt(5))
    cosine = np.sqrt((1 - first) / (1 + (roughness**4 - 1) * first))
    sine = np.sqrt(1 - cosine**2)
    half = np.stack([sine * np.cos(turn), sine * np.sin(turn), cosine], -1)
    lobe = 2 * half[:, 2:] * half - [0, 0, 1]  # mirror the axis at each half vector
    lobe = lobe[lobe[:, 2] > 0].astype(np.float32)
    tangent, bitangent = _tangents(directions)
    total = np.zeros(directions.shape, np.float32)
    for x, y, z in lobe:
        total += z * radiance(x * tangent + y * bitangent + z * directions)
    return total / lobe[:, 2].sum()


def _tangents(normals: Array) -> tuple[Array, Array]:
    """Two unit vectors at right angles to each normal and to each other."""
    helper = np.where(abs(normals[..., 1:2]) < 0.9, [0, 1, 0], [1, 0, 0]).astype(np.float32)
    tangent = np.cross(helper, normals)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    return tangent, np.cross(normals, tangent)


def _with_border(square: Array) -> Array:
    """(S, S, 3) -> (S + 2, S + 2, 3): across an edge the octahedral square meets its own mirror."""
    size = len(square)
    out = np.zeros((size + 2, size + 2, 3), np.float32)
    out[1:-1, 1:-1] = square
    out[0, 1:-1], out[-1, 1:-1] = square[0, ::-1], square[-1, ::-1]
    out[1:-1, 0], out[1:-1, -1] = square[::-1, 0], square[::-1, -1]
    out[0, 0] = out[-1, -1] = out[0, -1] = out[-1, 0] = square[0, 0]  # all four are the nadir
    return out
