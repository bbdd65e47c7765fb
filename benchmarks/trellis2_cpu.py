"""TRELLIS.2's networks on a CPU, against the machine's own arithmetic measured in the same run.

    python benchmarks/trellis2_cpu.py [--check] [--write] [--blocks 30] [--resolution 256]
                                      [--runs 1] [--rows structure shape decoder]

Full-size networks with random weights in float32. A step is one forward of a flow model: of the
structure on 4096 tokens, of the shape's latent on 4000 tokens around a torus knot, both with the
1029 tokens of a picture. The decoder is the texture's, on the voxels of a torus at --resolution,
level by level. The ceiling of each is the time that its products of matrices alone would take at
the machine's own rates, measured right before and after it. --blocks: of the flow models'
30, fewer take less memory (5 GB) and time; figures are then of that many.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from made_checkpoints import read_key_list
from made_dual_grid import made_dual_grid, torus_shell
from made_networks import fill
from made_voxels import knot_shell
from network_ceiling import measure_ceiling
from table import Figure, finish, parser
from torch import Tensor, nn

from onelook.nn.condition import Condition
from onelook.nn.subdivision import Subdivision, pyramid
from onelook.nn.voxels import SparseTensor, Voxels
from trellis2_backend.latent_decoder import SparseUnetVaeDecoder
from trellis2_backend.networks import NETWORKS

STRUCTURE = "ss_flow_img_dit_1_3B_64_bf16"
SHAPE = "slat_flow_img2shape_dit_1_3B_512_bf16"
DECODER = "tex_dec_next_dc_f16c32_fp16"
THREADS = 2
CONDITION_TOKENS, CONDITION_WIDTH = 1029, 1024
TOKENS, GRID = 4000, 32
TORUS_STEEPNESS = 1.1  # of the torus's ripples


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=30, help="of the flow models' 30")
    arguments.add_argument("--resolution", type=int, default=256, help="that is decoded to")
    arguments.add_argument(
        "--runs", type=int, default=1, help="timed runs of each, the best counts"
    )
    arguments.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    arguments = arguments.parse_args()
    torch.set_num_threads(THREADS)
    figures = [figure for name in arguments.rows for figure in ROWS[name](arguments)]
    figures.append(Figure("load average of the machine meanwhile", os.getloadavg()[0]))
    return finish("trellis2_cpu", figures, arguments)


def structure(arguments: Namespace) -> list[Figure]:
    """One step of the structure's flow model."""
    network = made_network(STRUCTURE, num_blocks=arguments.blocks)
    x = _draw(1, network.config.in_channels, *3 * (network.config.resolution,))
    return _step("structure step", network, lambda *given: network(x, *given), arguments)


def shape(arguments: Namespace) -> list[Figure]:
    """One step of the shape's flow model."""
    network = made_network(SHAPE, num_blocks=arguments.blocks)
    places = torch.from_numpy(knot_shell(TOKENS, GRID))
    x = SparseTensor(_draw(TOKENS, network.config.in_channels), Voxels(F.pad(places, (1, 0))))
    return _step("shape step", network, lambda *given: network(x, *given), arguments)


def _step(
    name: str, network: nn.Module, forward: Callable[..., Tensor], arguments: Namespace
) -> list[Figure]:
    """A step of a sampler: what blocks keep of the condition is there already."""
    condition = Condition(_draw(1, CONDITION_TOKENS, CONDITION_WIDTH))
    at = torch.tensor([700.0])
    ceiling = measure_ceiling(lambda: forward(at, condition), arguments.runs)
    title = f"{name}, {len(network.blocks)} blocks"
    return [
        Figure(f"{title}: arithmetic", ceiling.teraflops, "TFLOP"),
        Figure(f"{title}: float32", ceiling.seconds, "s"),
        Figure(f"{title}: achieved / ceiling", ceiling.ratio, at_least=0.8),
    ]


def decoder(arguments: Namespace) -> list[Figure]:
    """The texture's decoder, level by level."""
    network = made_network(DECODER)
    assert isinstance(network, SparseUnetVaeDecoder)
    start = time.perf_counter()
    levels = _torus_levels(arguments.resolution, network.config.doublings)
    voxels = levels[-1].coarse
    for level in levels:  # what is worked out once for a set of voxels
        _ = level.coarse.neighbours
    made = time.perf_counter() - start
    x = SparseTensor(_draw(len(voxels), network.config.latent_channels), voxels)
    with _timed_stages(network) as seconds:
        ceiling = measure_ceiling(lambda: network(x, levels[::-1]), arguments.runs)
    count = len(levels[0].fine)
    figures = [
        Figure(f"decoder: {len(voxels)} tokens -> voxels", count),
        Figure("decoder: voxels and neighbours of all levels, once", made, "s"),
        Figure("decoder: arithmetic", ceiling.teraflops, "TFLOP"),
        Figure("decoder: float32", ceiling.seconds, "s"),
        Figure("decoder: a million voxels", ceiling.seconds / count * 1e6, "s"),
        Figure("decoder: achieved / ceiling", ceiling.ratio, at_least=0.5),
    ]
    for number, (stage, level) in enumerate(zip(seconds, levels[::-1], strict=False)):
        title = f"decoder: level {number}, {len(level.coarse)} voxels"
        figures.append(Figure(title, stage, "s"))
    return figures


def _torus_levels(resolution: int, doublings: int) -> list[Subdivision]:
    made = made_dual_grid(torus_shell(), resolution, TORUS_STEEPNESS)
    return pyramid(Voxels(F.pad(torch.from_numpy(made.coords), (1, 0))), doublings)


@contextmanager
def _timed_stages(network: SparseUnetVaeDecoder) -> Iterator[list[float]]:
    """Seconds of each level's blocks, of the last forward within."""
    seconds = [0.0] * len(network.blocks)
    begun = [0.0]
    hooks = []

    def begin(number: int, is_first: bool) -> None:
        if is_first:
            seconds[number] = 0.0
        begun[0] = time.perf_counter()

    def end(number: int) -> None:
        seconds[number] += time.perf_counter() - begun[0]

    for number, stage in enumerate(network.blocks):
        for place, block in enumerate(stage):
            hooks += [
                block.register_forward_pre_hook(lambda *_, n=number, p=place: begin(n, p == 0)),
                block.register_forward_hook(lambda *_, n=number: end(n)),
            ]
    yield seconds
    for hook in hooks:
        hook.remove()


ROWS: dict[str, Callable[[Namespace], list[Figure]]] = {
    "structure": structure,
    "shape": shape,
    "decoder": decoder,
}


def made_network(stem: str, **changes: object) -> nn.Module:
    """The network of an official file of TRELLIS.2, in float32; changes: to its config."""
    described = read_key_list("trellis2", stem)
    with torch.device("meta"):
        network = NETWORKS[described.class_name](described.config | changes)
    return fill(network)


def _draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


if __name__ == "__main__":
    raise SystemExit(main())
