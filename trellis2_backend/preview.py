"""The original's preview pictures: its cameras, its tone mapping and how it lays its maps out.

The product films every model alike (`onelook.render`); this is for pictures that are to be laid
beside the original's. Cameras come in canonical space. N frames, P points, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from onelook.render.camera import Camera, orbit_camera

Array = np.ndarray

HALF_TURN = 3.1415  # the original's pi: its film ends a hair before where it began
SNAPSHOT_YAW, SNAPSHOT_PITCH = -16.0, 20.0  # degrees, of the first view
MAPS = ("base_color", "metallic", "roughness", "alpha")
# Directions of a cube map's faces: column (x, y or 1) and sign for each axis, +Z up.
_FACES = (
    ((2, 1), (0, -1), (1, -1)),
    ((2, -1), (0, 1), (1, -1)),
    ((0, 1), (1, 1), (2, 1)),
    ((0, 1), (1, -1), (2, -1)),
    ((0, 1), (2, 1), (1, -1)),
    ((0, -1), (2, -1), (1, -1)),
)


def film_cameras(
    num_frames: int = 120, distance: float = 2.0, fov_degrees: float = 40.0
) -> list[Camera]:
    """Once round the object, up and down again on the way; begins on +X."""
    turns = np.linspace(0, 2 * HALF_TURN, num_frames)
    pitches = 0.25 + 0.5 * np.sin(turns)
    return [
        _camera(math.pi / 2 - turn, pitch, distance, fov_degrees)
        for turn, pitch in zip(turns, pitches, strict=True)
    ]


def snapshot_cameras(
    num_views: int = 8, distance: float = 2.0, fov_degrees: float = 36.0
) -> list[Camera]:
    """Views round the object at even steps, from a little above."""
    yaws = np.linspace(0, 2 * math.pi, num_views, endpoint=False) + math.radians(SNAPSHOT_YAW)
    return [_camera(yaw, math.radians(SNAPSHOT_PITCH), distance, fov_degrees) for yaw in yaws]


def _camera(yaw: float, pitch: float, distance: float, fov_degrees: float) -> Camera:
    """yaw, pitch: radians; the original's yaw 0 stands on its +Y, behind the object."""
    return orbit_camera(180 - math.degrees(yaw), math.degrees(pitch), distance, fov_degrees)


def aces(light: Array) -> Array:
    """Linear light -> linear display light 0..1: Narkowicz's fit of the ACES film curve."""
    return np.clip(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0, 1)


def encode(light: Array) -> Array:
    """Linear display light -> screen values 0..1, by a power."""
    return np.clip(light ** (1 / 2.2), 0, 1)


def cube_directions(face: int, places: Array) -> Array:
    """places (P, 2) on face 0..5 of the original's cube map, -1..1 -> directions (P, 3), +Z up."""
    columns = np.column_stack([places, np.ones(len(places), places.dtype)])
    return np.stack([sign * columns[:, column] for column, sign in _FACES[face]], axis=1)


def lay_maps_out(shaded: Array, normal: Array, maps: Sequence[Array], size: int) -> Array:
    """Pictures (H, W, 3) uint8 -> one of 1.5 * size rows and 2 * size columns: the shaded picture
    and the normals above, half as large the four MAPS below."""
    above = [_resized(picture, size) for picture in (shaded, normal)]
    below = [_resized(picture, size // 2) for picture in maps]
    return np.concatenate([np.concatenate(row, axis=1) for row in (above, below)])


def _resized(picture: Array, size: int) -> Array:
    return np.asarray(Image.fromarray(picture).resize((size, size)))
