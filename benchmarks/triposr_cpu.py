"""TripoSR on two cores: picture to triplane, triplane to a coloured mesh at 256.

    python benchmarks/triposr_cpu.py [--check] [--write] [--no-network]

Full size, random weights. For the mesh a torus knot stands in for the density that the network
gives, which is worked out all the same, wherever it is asked; the colours are the network's. Times
are the best of three in a warm process; memory is the peak resident size of a process of its own
that extracts once. The ceiling is the time that the network's matrix products and attention alone
would take at the machine's own rates, measured in the same run.
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
from torch import Tensor

from onelook.isosurface.density_grid import crossed_cells, dense_cells
from onelook.nn.vit import ViTConfig
from triposr_backend.config import (
    BackboneConfig,
    DecoderConfig,
    PostProcessorConfig,
    RendererConfig,
    TokenizerConfig,
    TripoSRConfig,
)
from triposr_backend.extract_mesh import RESOLUTION, THRESHOLD, extract_mesh, grid_axis
from triposr_backend.scene_field import SceneField
from triposr_backend.scene_model import Decoder, TripoSR

THREADS = 2
TUBE, STEEPNESS = 0.13, 60.0  # radius in world units, of a knot that spans about 1.4
FAR = 0.4  # from the knot's curve: no need to know how far
CONFIG = TripoSRConfig(  # the official config.yaml
    cond_image_size=512,
    tokenizer=TokenizerConfig(plane_size=32, num_channels=1024),
    backbone=BackboneConfig(
        in_channels=1024,
        num_attention_heads=16,
        attention_head_dim=64,
        num_layers=16,
        cross_attention_dim=768,
    ),
    post_processor=PostProcessorConfig(in_channels=1024, out_channels=40),
    decoder=DecoderConfig(in_channels=120, n_neurons=64, n_hidden_layers=9),
    renderer=RendererConfig(radius=0.87),
    vit=ViTConfig(),
)


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--no-network", action="store_true", help="only the mesh")
    arguments = arguments.parse_args()
    torch.set_num_threads(THREADS)
    figures = [] if arguments.no_network else network()
    figures += mesh()
    figures.append(Figure("load average of the machine meanwhile", os.getloadavg()[0]))
    return finish("triposr_cpu", figures, arguments)


def network() -> list[Figure]:
    """One picture of 512 pixels -> triplane."""
    with torch.device("meta"):
        model = TripoSR(CONFIG)
    fill(model)
    images = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))
    made = measure_ceiling(lambda: model(images))
    return [
        Figure("picture to triplane: operations", made.teraflops, "TFLOP"),
        Figure("picture to triplane", made.seconds, "s"),
        Figure("picture to triplane: of the machine's arithmetic", made.ratio, at_least=0.9),
    ]


def mesh() -> list[Figure]:
    """Triplane -> mesh with vertex colours."""
    field = KnotField()
    times = []
    for _ in range(3):
        field.spent = 0.0
        start = time.perf_counter()
        made = extract_mesh(field, RESOLUTION)
        times.append(time.perf_counter() - start - field.spent)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(_peak_of_one)
    return [
        Figure("vertices", len(made.vertices)),
        Figure("faces", len(made.faces)),
        Figure("triplane to coloured mesh", min(times), "s", at_most=5),
        Figure("points asked for", made.queries),
        Figure("dense grid / points asked for", RESOLUTION**3 / made.queries, at_least=5),
        Figure("cells other than the dense grid's", _missed(field), at_most=0),
        Figure("peak memory of the process", peak / 1e9, "GB"),
    ]


class KnotField(SceneField):
    """The network's field, all of its work done, with a knot's density in place of its own.

    spent: seconds that the knot took.
    """

    def __init__(self):
        with torch.device("meta"):
            decoder = Decoder(CONFIG.decoder)
        planes = torch.randn(3, 40, 64, 64, generator=torch.Generator().manual_seed(2))
        super().__init__(planes, fill(decoder), CONFIG.renderer)
        self.spent = 0.0
        t = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
        ring = 0.47 + 0.19 * np.cos(3 * t)
        curve = np.stack([ring * np.cos(2 * t), ring * np.sin(2 * t), 0.25 * np.sin(3 * t)], 1)
        self._curve = cKDTree(curve)

    def density(self, points: Tensor) -> Tensor:
        asked = super().density(points)
        start = time.perf_counter()
        made = asked.mul_(0).add_(self.knot(points))
        self.spent += time.perf_counter() - start
        return made

    def knot(self, points: Tensor) -> Tensor:
        found = self._curve.query(points.numpy(), distance_upper_bound=FAR, workers=-1)[0]
        distance = torch.from_numpy(found).float()  # infinite beyond FAR
        return THRESHOLD * (STEEPNESS * (TUBE - distance)).clamp(-40, 40).exp()


def _missed(field: KnotField) -> int:
    """How many of the dense grid's cells are not among those found, or the other way round; here
    the knot alone is asked."""
    axis = grid_axis(RESOLUTION, CONFIG.renderer.radius)
    dense = dense_cells(field.knot, axis, THRESHOLD).cells
    found = crossed_cells(field.knot, axis, THRESHOLD, field.side).cells
    return len({*map(tuple, dense.tolist())} ^ {*map(tuple, found.tolist())})


def _peak_of_one() -> int:
    torch.set_num_threads(THREADS)
    extract_mesh(KnotField(), RESOLUTION)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
