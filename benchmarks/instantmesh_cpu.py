"""InstantMesh's reconstruction on two cores: six views to triplanes, triplanes to a mesh.

    python benchmarks/instantmesh_cpu.py [--check] [--write] [--no-network]

The large model with random weights. For the mesh the signed field of a torus knot stands in for
what the network's head gives, which is worked out all the same, for every point of the lattice;
deformation, weights and colours are the network's. Grid set-up is part of it. Times are the best of
three in a warm process; memory is the peak resident size of a process of its own that is given the
planes and the heads and extracts once. The ceiling is the time that the network's matrix products
and attention alone would take at the machine's own rates, measured in the same run.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time

import numpy as np
import torch
from made_networks import fill
from network_ceiling import measure_ceiling
from scipy.spatial import cKDTree
from table import Figure, finish, parser
from torch import Tensor, nn

from instantmesh_backend import extract_mesh as extraction
from instantmesh_backend.cameras import view_cameras
from instantmesh_backend.config import RECONSTRUCTION, MeshConfig
from instantmesh_backend.decoder_heads import MeshHeads, ShapeField
from instantmesh_backend.reconstruction import InstantMesh, build_reconstruction

THREADS = 2
CONFIG = RECONSTRUCTION["instant-mesh-large"]
TUBE = 0.17  # radius, of a knot that spans about 1.8


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--no-network", action="store_true", help="only the mesh")
    arguments = arguments.parse_args()
    torch.set_num_threads(THREADS)
    figures = [] if arguments.no_network else network()
    figures += mesh()
    figures.append(Figure("load average of the machine meanwhile", os.getloadavg()[0]))
    return finish("instantmesh_cpu", figures, arguments)


def network() -> list[Figure]:
    """Six views of 320 pixels -> triplanes."""
    with torch.device("meta"):
        model = build_reconstruction(CONFIG)
    fill(model)
    images = torch.rand(1, 6, 3, 320, 320, generator=torch.Generator().manual_seed(1))
    cameras = view_cameras()
    made = measure_ceiling(lambda: model.forward_planes(images, cameras))
    return [
        Figure("views to triplanes: operations", made.teraflops, "TFLOP"),
        Figure("views to triplanes", made.seconds, "s"),
        Figure("views to triplanes: of the machine's arithmetic", made.ratio, at_least=0.9),
    ]


def mesh() -> list[Figure]:
    """Triplanes -> mesh with vertex colours, at grid 128."""
    model, planes = made_heads(), made_planes()
    knot = _knot_field()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        made, spent_on_the_knot = extract(model, planes, knot)
        times.append(time.perf_counter() - start - spent_on_the_knot)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(_peak_of_one, (knot,))
    return [
        Figure("vertices", len(made.vertices)),
        Figure("faces", len(made.faces)),
        Figure("triplanes to coloured mesh", min(times), "s", at_most=12),
        Figure("peak memory of the process", peak / 1e9, "GB", at_most=3),
    ]


def made_heads() -> InstantMesh:
    """The decoder alone; its field works for nothing else here."""
    model = InstantMesh.__new__(InstantMesh)
    nn.Module.__init__(model)
    model.config = CONFIG
    with torch.device("meta"):
        model.synthesizer = nn.Module()
        model.synthesizer.decoder = MeshHeads(CONFIG.triplane_dim)
    return fill(model)


def made_planes() -> Tensor:
    shape = (1, 3, CONFIG.triplane_dim, CONFIG.triplane_high_res, CONFIG.triplane_high_res)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def extract(
    model: InstantMesh, planes: Tensor, knot: Tensor
) -> tuple[extraction.ExtractedMesh, float]:
    """The mesh, and the seconds that putting the knot in place took."""
    network_sdf, spent = ShapeField.sdf, []

    def sdf(field: ShapeField, points: Tensor) -> Tensor:
        asked = network_sdf(field, points)
        start = time.perf_counter()
        asked.mul_(0).add_(knot)
        spent.append(time.perf_counter() - start)
        return asked

    ShapeField.sdf = sdf
    try:
        return extraction.extract_mesh(model, planes), sum(spent)
    finally:
        ShapeField.sdf = network_sdf


def _knot_field() -> Tensor:
    """Signed distance to a (2, 3) torus knot's tube at the lattice's points, negative inside."""
    assert isinstance(CONFIG, MeshConfig)
    axis = extraction.lattice_axis(CONFIG.grid_res, CONFIG.grid_scale)
    points = torch.cartesian_prod(axis, axis, axis).numpy()
    t = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    ring = 0.6 + 0.25 * np.cos(3 * t)
    curve = np.stack([ring * np.cos(2 * t), ring * np.sin(2 * t), 0.32 * np.sin(3 * t)], 1)
    return torch.from_numpy(cKDTree(curve).query(points, workers=-1)[0] - TUBE).float()


def _peak_of_one(knot: Tensor) -> int:
    torch.set_num_threads(THREADS)
    extract(made_heads(), made_planes(), knot)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
