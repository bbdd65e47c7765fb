"""Cleaning, simplifying and writing, measured on a rough knot and on the same knot badly damaged.

    python benchmarks/asset_geometry.py [--check] [--write]

Times are medians of three in a warm process. The damaged knot has a million faces outside, as many
on an inner shell, 40 floaters, 30 holes, 20 fins, and 17 % of its faces turned the wrong way round.
Distances are shares of the bounding box's diagonal.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from meshes import damaged_knot, knot, scramble_winding
from table import Figure, finish, median_seconds, parser

from onelook.asset.asset import Asset, Textures
from onelook.asset.clean import CleanMesh, clean
from onelook.asset.gltf import write_glb
from onelook.asset.simplify import simplify
from onelook.asset.topology import face_areas, find_edges
from onelook.asset.visibility import part_visibility
from onelook.asset.winding import agreeing
from onelook.closest_point import ClosestPoint

Array = np.ndarray

OUTER_FACES = 1_000_000
BUDGET = 100_000
TEXTURE_SIZE = 4096


def main() -> int:
    arguments = parser("Measure cleaning, simplifying and writing.").parse_args()
    damaged = damaged_knot(2 * OUTER_FACES)
    faces = scramble_winding(damaged.faces, 0.17)
    mesh = clean(damaged.vertices, faces)
    figures = [
        Figure(
            "clean, damaged", median_seconds(lambda: clean(damaged.vertices, faces)), "s", at_most=6
        ),
        *_soundness(mesh),
        Figure("visible area lost", _visible_area_lost(damaged.sound, mesh), "%", at_most=0.5),
    ]
    sound = knot(300_000)
    figures.append(
        Figure("clean, 300k sound faces", median_seconds(lambda: clean(*sound)), "s", at_most=0.5)
    )
    rough = knot(OUTER_FACES)
    simple = simplify(*rough, BUDGET)
    figures += [
        Figure("simplify 1M to 100k", median_seconds(lambda: simplify(*rough, BUDGET)), "s", 2),
        Figure("faces under budget", 100 * (1 - len(simple[1]) / BUDGET), "%", at_most=1),
        Figure("simplify, mean distance", 1e4 * _mean_distance(simple, rough), "1e-4", at_most=1),
        Figure("GLB, 1M faces, 2 PNG of 4096", _write_seconds(rough), "s", at_most=1.5),
    ]
    return finish("asset_geometry", figures, arguments)


def _soundness(mesh: CleanMesh) -> list[Figure]:
    edges = find_edges(mesh.faces)
    conflicts = int((~agreeing(mesh.faces, edges.paired())).sum())
    return [
        Figure("edges with three faces or more", int((edges.uses > 2).sum()), at_most=0),
        Figure("edges with one face", int((edges.uses == 1).sum()), at_most=0),
        Figure("neighbours that disagree", conflicts, at_most=0),
        Figure("floaters dropped", mesh.floaters, at_least=40),
        Figure("hidden parts dropped", mesh.hidden_parts, at_least=1),
        Figure("holes closed", mesh.filled_holes, at_least=30),
    ]


def _visible_area_lost(sound: tuple[Array, Array], mesh: CleanMesh, blocks: int = 4000) -> float:
    """Percent of the visible area of the sound knot that the cleaned mesh is nowhere near to."""
    vertices, faces = sound
    block = np.arange(len(faces)) * blocks // len(faces)  # neighbours in small groups
    seen = part_visibility(vertices, faces, block, blocks, "cpu").front[block]
    visible = face_areas(vertices, faces) * seen
    centres = vertices[faces].mean(1)
    distance = ClosestPoint(mesh.vertices, mesh.faces, "cpu").query(centres).distance
    is_lost = distance > 0.005 * np.linalg.norm(np.ptp(vertices, axis=0))
    return float(100 * visible[is_lost].sum() / visible.sum())


def _mean_distance(mesh: tuple[Array, Array], other: tuple[Array, Array]) -> float:
    """Mean distance of points on either to the other, as a share of the diagonal."""
    means = []
    for (vertices, faces), target in ((mesh, other), (other, mesh)):
        points = np.concatenate([vertices, vertices[faces].mean(1)])
        means.append(ClosestPoint(*target, "cpu").query(points).distance.mean())
    return float(np.mean(means) / np.linalg.norm(np.ptp(other[0], axis=0)))


def _write_seconds(mesh: tuple[Array, Array]) -> float:
    vertices, faces = mesh
    asset = Asset(
        vertices=vertices,
        normals=np.broadcast_to(np.float32([0, 1, 0]), vertices.shape),
        uvs=vertices[:, :2] + np.float32(0.5),
        faces=faces,
        textures=_photo_like_textures(),
    )
    with tempfile.TemporaryDirectory() as folder:
        return median_seconds(lambda: write_glb(asset, Path(folder) / "knot.glb"))


def _photo_like_textures() -> Textures:
    """Clouds, detail and a little grain: as hard to compress as a photograph."""
    rng = np.random.Generator(np.random.PCG64(5))
    size = (TEXTURE_SIZE, TEXTURE_SIZE)
    image = 0.006 * rng.standard_normal((*size, 4), np.float32)
    for cells, share in ((64, 0.8), (1024, 0.15)):
        clouds = rng.random((cells, cells, 4), np.float32)
        image += share * cv2.resize(clouds, size, interpolation=cv2.INTER_CUBIC)
    texels = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Textures(base_color=texels, metallic_roughness=np.ascontiguousarray(texels[..., 2:]))


if __name__ == "__main__":
    sys.exit(main())
