"""TRELLIS.2's geometry at full size: dual grid to mesh and back, sampling voxels, baking.

    python benchmarks/dual_grid.py [--check] [--write] [--quick]

A hollow torus from a formula, about 2.1 million active voxels at R = 1024, its rows in random
order. Times are the best of three in a warm process. Memory is the peak resident size of a process
of its own that loads the dual grid from a file and makes the mesh once. The baked mesh is the same
torus, cleaned and simplified to 100 000 faces; every texel is projected onto the surface as it was
and takes its material from the voxels. --quick: an eighth of the resolution, to see that it runs.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from made_dual_grid import MadeDualGrid, made_dual_grid, torus_shell
from table import Figure, finish, parser

from onelook.asset.bake import bake
from onelook.asset.clean import clean
from onelook.asset.normals import vertex_normals
from onelook.asset.simplify import simplify
from onelook.asset.unwrap import unwrap
from onelook.surface import Surface
from trellis2_backend.dual_grid import DualGrid, dual_grid_to_mesh
from trellis2_backend.frame import Frame
from trellis2_backend.mesh_to_dual_grid import mesh_to_dual_grid
from trellis2_backend.voxel_appearance import VoxelAppearance, VoxelAttributes

Array = np.ndarray
FACES, TEXTURE_SIZE = 100_000, 2048
STEEPNESS = 1.1  # of the torus's ripples
MESH_SECONDS, MESH_GIGABYTES = 10, 3


def main() -> int:
    arguments = _arguments()
    scale = 8 if arguments.quick else 1
    figures = []
    for resolution in (512 // scale, 1024 // scale):
        made = made_dual_grid(torus_shell(), resolution, STEEPNESS)
        figures += _mesh_figures(made, targets=resolution == 1024)
    figures += _sampling_figures(made)
    figures += _baking_figures(made, TEXTURE_SIZE // scale)
    return finish("dual_grid", figures, arguments)


def _arguments():
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    return made.parse_args()


def _mesh_figures(made: MadeDualGrid, targets: bool) -> list[Figure]:
    """Dual grid to mesh, its memory, and mesh to dual grid."""
    grid, at = shuffled(made), f"{made.resolution}^3"
    mesh = dual_grid_to_mesh(grid)
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    return [
        Figure(f"{at}: active voxels", len(grid.coords)),
        Figure(f"{at}: faces", len(faces)),
        Figure(
            f"{at}: dual grid to mesh",
            best_seconds(lambda: dual_grid_to_mesh(grid)),
            "s",
            at_most=MESH_SECONDS if targets else None,
        ),
        Figure(
            f"{at}: peak memory of that process",
            _peak_bytes(grid) / 1e9,
            "GB",
            at_most=MESH_GIGABYTES if targets else None,
        ),
        Figure(
            f"{at}: mesh to dual grid",
            best_seconds(lambda: mesh_to_dual_grid(vertices, faces, made.resolution), 1),
            "s",
        ),
    ]


def _sampling_figures(made: MadeDualGrid) -> list[Figure]:
    """Trilinear sampling at every vertex of the mesh, near one another in memory and not."""
    points = made.coords + made.offsets
    scattered = points[np.random.default_rng(0).permutation(len(points))]
    voxels = VoxelAttributes(made.coords, made.attributes, made.resolution)
    voxels.sample(points)
    figures = []
    for name, some in (("neighbouring", points), ("scattered", scattered)):
        rate = len(some) / best_seconds(lambda some=some: voxels.sample(some)) / 1e6
        figures.append(Figure(f"trilinear samples, {name} points", rate, "million/s"))
    return figures


def _baking_figures(made: MadeDualGrid, texture_size: int) -> list[Figure]:
    mesh = dual_grid_to_mesh(shuffled(made))
    frame = Frame.fitting(mesh.vertices.numpy())
    sound = clean(frame.to_canonical(mesh.vertices.numpy()), mesh.faces.numpy())
    vertices, faces = simplify(sound.vertices, sound.faces, FACES)
    atlas = unwrap(vertices, faces, texture_size)
    appearance = VoxelAppearance(
        made.coords,
        made.attributes,
        made.resolution,
        frame.voxels_from_canonical(made.resolution),
    )
    normals = vertex_normals(vertices, faces)[atlas.vertices_index]
    corners = vertices[atlas.vertices_index]
    surface = Surface(sound.vertices, sound.faces, appearance)

    def work() -> None:
        bake(corners, normals, atlas.uvs, atlas.faces, surface, texture_size)

    return [
        Figure("faces of the surface that is baked from", len(sound.faces)),
        Figure(f"baking {texture_size} x {texture_size}", best_seconds(work), "s"),
    ]


def shuffled(made: MadeDualGrid) -> DualGrid:
    """The dual grid with its rows in random order, as a decoder's are in no useful one."""
    order = np.random.default_rng(0).permutation(len(made.coords))
    arrays = (made.coords, made.offsets, made.intersected, made.split_weight)
    coords, offsets, intersected, weight = (torch.from_numpy(rows[order]) for rows in arrays)
    return DualGrid(coords, offsets, intersected, made.resolution, weight)


def best_seconds(work: Callable[[], object], runs: int = 3) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _peak_bytes(grid: DualGrid) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.pt"
        torch.save(vars(grid), path)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_mesh_once, (path,))


def _mesh_once(path: Path) -> int:
    dual_grid_to_mesh(DualGrid(**torch.load(path, weights_only=True)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
