"""Make the example pictures teapot.png and robot.png: model, mesh, texture and photograph them.

Both objects are solid parts given by signed distance functions. Their union is meshed by the
project's own marching cubes, textured by its baker and photographed by its renderer, so the
pictures belong to the project and carry no one else's licence.

    python examples/render_objects.py [folder]

+Y up, front +Z; one unit is about an object's size. P points.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onelook.asset.build import build_asset
from onelook.foreground.png import write_png
from onelook.isosurface.cube_cases import CORNER_OFFSETS
from onelook.isosurface.marching_cubes import marching_cubes_cells
from onelook.render.camera import orbit_camera
from onelook.render.shade import render
from onelook.report import Report
from onelook.surface import Material, Surface

Array = np.ndarray
Distance = Callable[[Array], Array]  # points (P, 3) -> signed distance (P,), negative inside
Paint = Callable[[Array], Array]  # points (P, 3) -> sRGB colours (P, 3)

PIXELS = 768
BLOCKS, CELLS = 40, 8  # blocks along each axis, cells along a block


# ---- Parts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A solid with its paint. `paint` is a colour as 0xRRGGBB or a function of the points."""

    distance: Distance
    paint: int | Paint
    roughness: float = 0.35
    metallic: float = 0.0

    def colors(self, points: Array) -> Array:
        return (
            self.paint(points)
            if callable(self.paint)
            else np.tile(rgb(self.paint), (len(points), 1))
        )


@dataclass(frozen=True)
class Parts:
    """Several parts, joined with fillets of about `fillet`."""

    parts: tuple[Part, ...]
    fillet: float

    def distance(self, points: Array) -> Array:
        """Smooth minimum: Quilez, "smooth minimum", the exponential form."""
        distances = np.stack([part.distance(points) for part in self.parts])  # (parts, P)
        least = distances.min(axis=0)
        weights = np.exp(np.minimum((least - distances) / self.fillet, 0))
        return least - self.fillet * np.log(weights.sum(axis=0))

    def sample(self, points: Array, normals: Array) -> Material:
        nearest = np.argmin([part.distance(points) for part in self.parts], axis=0)
        colors = np.empty((len(points), 3), np.float32)
        roughness, metallic = np.empty((2, len(points)), np.float32)
        for number, part in enumerate(self.parts):
            own = nearest == number
            colors[own] = part.colors(points[own])
            roughness[own], metallic[own] = part.roughness, part.metallic
        return Material(colors, np.ones(len(points), np.float32), metallic, roughness)


@dataclass(frozen=True)
class Placed:
    """Parts moved to the centre and scaled to a longest side of 1: their canonical space."""

    parts: Parts
    center: Array
    size: float

    def sample(self, points: Array, normals: Array) -> Material:
        return self.parts.sample(points * np.float32(self.size) + self.center, normals)


def rgb(color: int) -> Array:
    return np.array([color >> 16, color >> 8 & 255, color & 255], np.float32) / 255


def at(*center: float) -> Array:
    return np.array(center, np.float32)


def ball(center: Array, radius: float, stretch: Array | None = None) -> Distance:
    """A sphere, or an ellipsoid (its distance is then an approximation)."""
    scale = np.ones(3, np.float32) if stretch is None else stretch
    return lambda p: (np.linalg.norm((p - center) / scale, axis=-1) - radius) * scale.min()


def rod(start: Array, end: Array, radius: float, end_radius: float | None = None) -> Distance:
    """A rounded stick, thicker or thinner at its end."""
    axis, taper = end - start, (radius if end_radius is None else end_radius) - radius

    def distance(p: Array) -> Array:
        way = np.clip((p - start) @ axis / (axis @ axis), 0, 1)
        return np.linalg.norm(p - start - way[:, None] * axis, axis=-1) - radius - taper * way

    return distance


def box(center: Array, half: Array, rounding: float) -> Distance:
    def distance(p: Array) -> Array:
        beyond = np.abs(p - center) - half + rounding
        outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
        return outside + np.minimum(beyond.max(axis=-1), 0) - rounding

    return distance


def hoop(
    center: Array, radius: float, thickness: float, normal: int, squash: float = 1.0
) -> Distance:
    """A torus around axis `normal`; squash > 1 makes it taller than wide."""

    def distance(p: Array) -> Array:
        q = np.delete(p - center, normal, axis=-1) / np.array([1.0, squash], np.float32)
        ring = np.linalg.norm(q, axis=-1) - radius
        return np.hypot(ring, (p - center)[:, normal]) - thickness

    return distance


def turned(profile: list[tuple[float, float]], rounding: float) -> Distance:
    """A solid of revolution about Y; `profile`: its (radius, height) corners, bottom to top."""
    heights = np.array([height for _, height in profile])
    radii = np.array([radius for radius, _ in profile])

    def distance(p: Array) -> Array:
        radius = np.hypot(p[:, 0], p[:, 2])
        outward = (radius - np.interp(p[:, 1], heights, radii)) * 0.7  # slopes of up to 45 degrees
        above = np.maximum(p[:, 1] - heights[-1], heights[0] - p[:, 1])
        corner = np.hypot(np.maximum(outward + rounding, 0), np.maximum(above + rounding, 0))
        return corner + np.minimum(np.maximum(outward, above) + rounding, 0) - rounding

    return distance


def bent(points: list[Array], radii: list[float]) -> Distance:
    """A tube along a line of points."""
    rods = [rod(*pair) for pair in zip(points, points[1:], radii, radii[1:], strict=False)]
    return lambda p: np.min([piece(p) for piece in rods], axis=0)


# ---- The two objects -----------------------------------------------------------------------------

CREAM, COBALT, GOLD = 0xF4EAD5, 0x24418F, 0xC99A3B


def teapot() -> Parts:
    curve = np.linspace(0, 1, 200)
    belly = [
        (0.20 + 0.19 * np.sin(np.pi * (0.12 + 0.76 * t)) ** 0.9, -0.29 + 0.49 * t) for t in curve
    ]
    spout = _bezier(at(0.24, -0.14, 0), at(0.52, -0.16, 0), at(0.40, 0.17, 0), at(0.60, 0.21, 0))
    return Parts(
        parts=(
            Part(turned(belly, 0.05), _glazed, 0.18),
            Part(turned([(0.24, -0.34), (0.20, -0.28)], 0.012), COBALT, 0.2),
            Part(
                turned([(0.235, 0.19), (0.22, 0.23), (0.15, 0.27), (0.05, 0.295)], 0.01),
                CREAM,
                0.18,
            ),
            Part(hoop(at(0, 0.205, 0), 0.232, 0.014, 1), GOLD, 0.25, 1.0),
            Part(ball(at(0, 0.335, 0), 0.052), COBALT, 0.15),
            Part(bent(spout, np.linspace(0.11, 0.036, len(spout)).tolist()), CREAM, 0.18),
            Part(ball(at(0.605, 0.212, 0), 0.041), GOLD, 0.25, 1.0),
            Part(hoop(at(-0.40, -0.02, 0), 0.165, 0.034, 2, 1.15), COBALT, 0.2),
        ),
        fillet=0.008,
    )


def _bezier(*control: Array, pieces: int = 48) -> list[Array]:
    """Points along a cubic curve (de Casteljau)."""
    curve = []
    for t in np.linspace(0, 1, pieces + 1, dtype=np.float32):
        line = list(control)
        while len(line) > 1:
            line = [(1 - t) * a + t * b for a, b in zip(line, line[1:], strict=False)]
        curve.append(line[0])
    return curve


def _glazed(points: Array) -> Array:
    """Cream glaze with two cobalt lines and a wreath of petals between them."""
    angle, height = np.arctan2(points[:, 0], points[:, 2]), points[:, 1]
    petal = (angle / (2 * np.pi) * 14) % 1 - 0.5  # across one petal, -0.5 .. 0.5
    along = (height + 0.04) / 0.095
    shape = np.abs(petal) / 0.42 + np.abs(along) ** 1.6 - 0.9
    heart = np.hypot(petal * 0.17, height + 0.04) - 0.022
    dots = np.hypot(((petal + 1) % 1 - 0.5) * 0.17, np.abs(height + 0.04) - 0.082) - 0.013
    lines = np.minimum(np.abs(height - 0.10), np.abs(height + 0.18)) - 0.009
    colors = np.tile(rgb(CREAM), (len(points), 1))
    for edge, color in ((shape * 0.07, COBALT), (heart, GOLD), (dots, 0xB5462F), (lines, COBALT)):
        covered = np.clip(0.5 - edge / 0.003, 0, 1)[:, None]
        colors = colors * (1 - covered) + rgb(color) * covered
    return colors


TEAL, ORANGE, STEEL, DARK = 0x2F9C95, 0xF08A24, 0xC4C9CF, 0x2B2F3A


def robot() -> Parts:
    both = [part for side in (-1, 1) for part in _limbs(side)]
    return Parts(
        parts=(
            Part(box(at(0, 0.24, 0), at(0.21, 0.15, 0.16), 0.07), TEAL, 0.3),
            Part(box(at(0, 0.245, 0.145), at(0.165, 0.095, 0.03), 0.028), DARK, 0.12),
            Part(box(at(0, -0.14, 0), at(0.19, 0.19, 0.14), 0.08), TEAL, 0.3),
            Part(box(at(0, -0.12, 0.13), at(0.12, 0.095, 0.022), 0.02), 0xF3E9D2, 0.4),
            Part(rod(at(0, 0.04, 0), at(0, 0.12, 0), 0.07), STEEL, 0.3, 1.0),
            Part(rod(at(0, 0.36, 0), at(0, 0.46, 0), 0.016), STEEL, 0.3, 1.0),
            Part(ball(at(0, 0.485, 0), 0.042), ORANGE, 0.2),
            Part(box(at(0, 0.185, 0.178), at(0.055, 0.010, 0.010), 0.008), ORANGE, 0.3),
            Part(ball(at(-0.06, -0.085, 0.155), 0.024, at(1, 1, 0.6)), 0xD8432F, 0.25),
            Part(ball(at(0.0, -0.085, 0.155), 0.024, at(1, 1, 0.6)), ORANGE, 0.25),
            Part(ball(at(0.06, -0.085, 0.155), 0.024, at(1, 1, 0.6)), 0x3F7FD0, 0.25),
            Part(box(at(0, -0.16, 0.155), at(0.08, 0.016, 0.008), 0.006), DARK, 0.3),
            *both,
        ),
        fillet=0.004,
    )


def _limbs(side: int) -> tuple[Part, ...]:
    """Eye, ear, arm and leg of one side: -1 is at -X."""
    return (
        Part(ball(at(0.08 * side, 0.265, 0.17), 0.042, at(1, 1, 0.5)), 0x8FF0E4, 0.15),
        Part(ball(at(0.08 * side + 0.008, 0.272, 0.186), 0.017, at(1, 1, 0.6)), 0xFFFFFF, 0.2),
        Part(rod(at(0.20 * side, 0.24, 0), at(0.245 * side, 0.24, 0), 0.05), ORANGE, 0.3),
        Part(ball(at(0.215 * side, -0.02, 0), 0.062), ORANGE, 0.3),
        Part(
            bent(
                [
                    at(0.22 * side, -0.02, 0),
                    at(0.33 * side, -0.10, 0.02),
                    at(0.345 * side, -0.21, 0.08),
                ],
                [0.036, 0.036, 0.036],
            ),
            STEEL,
            0.3,
            1.0,
        ),
        Part(ball(at(0.347 * side, -0.245, 0.10), 0.06), ORANGE, 0.3),
        Part(rod(at(0.09 * side, -0.30, 0), at(0.09 * side, -0.42, 0), 0.05), STEEL, 0.3, 1.0),
        Part(box(at(0.10 * side, -0.455, 0.03), at(0.085, 0.048, 0.13), 0.048), ORANGE, 0.3),
    )


# ---- Mesh and picture ----------------------------------------------------------------------------


def mesh(parts: Parts) -> Surface:
    """Marching cubes over the blocks of cells that the surface can pass through."""
    half, block = 0.8, 1.6 / BLOCKS
    corner = np.indices((BLOCKS,) * 3).reshape(3, -1).T
    centers = (corner + 0.5) * block - half
    reach = 1.3 * block  # half a block's diagonal, and half as much again: distances are inexact
    corner = corner[np.abs(parts.distance(centers.astype(np.float32))) < reach]
    within = np.indices((CELLS + 1,) * 3).reshape(3, -1).T
    nodes = (corner[:, None] * CELLS + within).reshape(-1, 3)  # (blocks * 9^3, 3)
    points = (nodes * (block / CELLS) - half).astype(np.float32)
    values = -np.concatenate([parts.distance(some) for some in np.array_split(points, 32)])
    values = values.reshape(-1, *(CELLS + 1,) * 3)
    corners = [
        values[:, x : x + CELLS, y : y + CELLS, z : z + CELLS].reshape(-1)
        for x, y, z in CORNER_OFFSETS.tolist()
    ]
    cells = np.indices((CELLS,) * 3).reshape(3, -1).T
    coords = (corner[:, None] * CELLS + cells).reshape(-1, 3)
    vertices, faces = marching_cubes_cells(np.stack(corners, axis=1), coords, min_fraction=0.1)
    vertices = vertices * np.float32(block / CELLS) - np.float32(half)
    for _ in range(2):
        vertices = _project(vertices, parts.distance)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    placed = Placed(parts, (low + high) / 2, float((high - low).max()))
    return Surface((vertices - placed.center) / np.float32(placed.size), faces, placed)


def _project(points: Array, distance: Distance) -> Array:
    """One Newton step onto the surface: marching cubes only interpolates along grid edges."""
    step = np.float32(1e-3)
    slopes = [
        (distance(points + offset) - distance(points - offset)) / (2 * step)
        for offset in step * np.eye(3, dtype=np.float32)
    ]
    gradient = np.stack(slopes, axis=1)
    square = np.maximum((gradient**2).sum(axis=1), 0.1)
    return (points - gradient * (distance(points) / square)[:, None]).astype(np.float32)


def photograph(parts: Parts, azimuth_degrees: float, elevation_degrees: float) -> Array:
    """A picture (PIXELS, PIXELS, 4) uint8 with alpha."""
    asset = build_asset(mesh(parts), decimation_target=400_000, texture_size=2048, report=Report())
    camera = orbit_camera(azimuth_degrees, elevation_degrees, 3.0, 24.0)
    return render(asset, camera, PIXELS, PIXELS, supersample=4)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    write_png(photograph(teapot(), 12, 16), folder / "teapot.png")
    write_png(photograph(robot(), -18, 8), folder / "robot.png")


if __name__ == "__main__":
    main()
