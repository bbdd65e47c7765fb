"""Cameras: where the picture is taken from and how space becomes clip space.

Canonical space: +Y up, front +Z. Camera space is OpenGL's: +X right, +Y up, looking along -Z.
Clip space is OpenGL's too: a point is in the picture where -w <= x, y, z <= w; +y is up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
CANONICAL_RADIUS = math.sqrt(3) / 2  # no point of a unit box is farther from its centre


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera (`fov_degrees`) or a parallel one (`half_height`); exactly one is given.

    world_to_camera (4, 4) float32, rigid. fov_degrees: the full vertical angle, 0..180.
    half_height: half of what the picture shows vertically, in object units. near, far: distances
    along the view axis, in object units; points outside are not drawn.
    """

    world_to_camera: Array
    fov_degrees: float | None = None
    half_height: float | None = None
    near: float = 0.1
    far: float = 10.0

    def __post_init__(self) -> None:
        if (self.fov_degrees is None) == (self.half_height is None):
            raise ValueError("give a camera either fov_degrees or half_height")
        if self.fov_degrees is not None and not 0 < self.fov_degrees < 180:
            raise ValueError(f"fov_degrees must be between 0 and 180, got {self.fov_degrees}")
        if self.half_height is not None and not self.half_height > 0:
            raise ValueError(f"half_height must be positive, got {self.half_height}")
        if not self.near < self.far or (self.fov_degrees is not None and self.near <= 0):
            raise ValueError(f"near and far must be in order, got {self.near} and {self.far}")

    @property
    def half_extent(self) -> float:
        """Half of the visible height: at distance 1 (pinhole) or anywhere (parallel)."""
        if self.fov_degrees is not None:
            return math.tan(math.radians(self.fov_degrees) / 2)
        assert self.half_height is not None
        return self.half_height

    def projection(self, aspect: float) -> Array:
        """Camera space to clip space, (4, 4) float32; aspect = width / height of the picture."""
        matrix = np.zeros((4, 4))
        matrix[0, 0] = 1 / (self.half_extent * aspect)
        matrix[1, 1] = 1 / self.half_extent
        depth = self.far - self.near
        if self.fov_degrees is not None:
            matrix[2, 2] = -(self.far + self.near) / depth
            matrix[2, 3] = -2 * self.far * self.near / depth
            matrix[3, 2] = -1
        else:
            matrix[2, 2] = -2 / depth
            matrix[2, 3] = -(self.far + self.near) / depth
            matrix[3, 3] = 1
        return matrix.astype(np.float32)

    def clip_from_world(self, aspect: float) -> Array:
        """World space to clip space, (4, 4) float32."""
        product = self.projection(aspect).astype(np.float64) @ self.world_to_camera
        return product.astype(np.float32)

    def project(self, points: Array, width: int, height: int) -> Array:
        """points (N, 3) -> (N, 2) float32 pixels: x right, y down, (0, 0) the top left corner."""
        homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)  # (N, 4)
        clip = homogeneous @ self.clip_from_world(width / height).T
        pixels = clip[:, :2] / clip[:, 3:] * [0.5, -0.5] + 0.5
        return (pixels * [width, height]).astype(np.float32)


def orbit_camera(
    azimuth_degrees: float,
    elevation_degrees: float,
    distance: float,
    fov_degrees: float,
    radius: float = CANONICAL_RADIUS,
) -> Camera:
    """A pinhole camera on a sphere around the origin, looking at it, upright.

    Azimuth 0 stands on +Z and sees the front; 90 stands on +X. Elevation 90 looks straight down.
    Near and far close in on a sphere of `radius` around the origin.
    """
    return Camera(
        _look_at_origin(azimuth_degrees, elevation_degrees, distance),
        fov_degrees=fov_degrees,
        near=max(distance - 1.01 * radius, 1e-3 * distance),
        far=distance + 1.01 * radius,
    )


def orthographic_camera(
    azimuth_degrees: float = 0.0,
    elevation_degrees: float = 0.0,
    half_height: float = 0.5,
    radius: float = CANONICAL_RADIUS,
) -> Camera:
    """A parallel camera from the same directions as `orbit_camera`; the default is the front view.

    With half_height 0.5 a canonical object's unit box fills a square picture of its front exactly.
    """
    return Camera(
        _look_at_origin(azimuth_degrees, elevation_degrees, 2 * radius),
        half_height=half_height,
        near=0.99 * radius,
        far=3.01 * radius,
    )


def turning_distance(
    vertices: Array, elevation_degrees: float, fov_degrees: float, margin: float = 1.05
) -> float:
    """Distance of an orbit camera that shows every vertex from every azimuth in a square picture.

    vertices (N, 3), object units. While the camera orbits, a vertex of radius r and height y runs
    round a circle. In camera axes it stands at (r sin a, y cos e - r cos a sin e,
    r cos a cos e + y sin e) for elevation e, and is in the picture of slope t where
    distance >= z + |x| / t and distance >= z + |y| / t; both have their maximum over a in closed
    form. The slope is divided by `margin`, which leaves a border.
    """
    slope = math.tan(math.radians(fov_degrees) / 2) / margin
    sine, cosine = (f(math.radians(elevation_degrees)) for f in (math.sin, math.cos))
    height = vertices[:, 1].astype(np.float64)
    reach = np.hypot(vertices[:, 0], vertices[:, 2]).astype(np.float64)
    sideways = height * sine + reach * math.hypot(cosine, 1 / slope)
    upwards = height * (sine + cosine / slope) + reach * abs(cosine - sine / slope)
    downwards = height * (sine - cosine / slope) + reach * abs(cosine + sine / slope)
    return float(max(sideways.max(), upwards.max(), downwards.max(), 1e-3))


def _look_at_origin(azimuth_degrees: float, elevation_degrees: float, distance: float) -> Array:
    """World to camera, (4, 4) float32, for an upright camera that looks at the origin."""
    azimuth, elevation = math.radians(azimuth_degrees), math.radians(elevation_degrees)
    right = [math.cos(azimuth), 0.0, -math.sin(azimuth)]
    backward = [
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    ]
    matrix = np.eye(4)
    matrix[0, :3], matrix[1, :3], matrix[2, :3] = right, np.cross(backward, right), backward
    matrix[2, 3] = -distance
    return matrix.astype(np.float32)
