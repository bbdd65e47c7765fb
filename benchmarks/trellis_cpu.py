"""TRELLIS's networks on a CPU, against the machine's own arithmetic measured in the same run.

    python benchmarks/trellis_cpu.py [--check] [--write] [--rows structure latent guided conv mesh]

Full-size networks with random weights: the structure's flow model on 4096 tokens and 1374 of the
condition, the latent's on 12 000 voxels around a torus knot, the mesh decoder on 3000. A step is
one forward. The ceiling of a step is the time that its arithmetic alone would take at the rates of
one matrix product and one attention, measured right before and after it. The guided run is a
quarter of the tokens and 3 steps, all of them guided, so that it takes two minutes; with all
tokens and 12 steps the plain way loses a little more. CPU seconds are of all threads: what other
programs on the machine change least.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from made_networks import made_network
from made_voxels import knot_shell
from network_ceiling import Rates, linear_seconds, mean_rates, measure_rates
from table import Figure, finish, median_seconds, parser
from torch import Tensor, nn

from onelook.nn.condition import Condition
from onelook.nn.flow import flow_times, sample_flow
from onelook.nn.resblocks import SparseResBlock
from onelook.nn.sparse_conv import SubmanifoldConv, convolve, convolve_plain
from onelook.nn.transformer import CrossAttention, SelfAttention
from onelook.nn.voxels import SparseTensor, Voxels
from trellis_backend.networks import half_keys
from trellis_backend.sampler import Guidance, guided_velocity, structure_velocities

STRUCTURE, LATENT = "ss_flow_img_dit_L_16l8_fp16", "slat_flow_img_dit_L_64l8p2_fp16"
MESH = "slat_dec_mesh_swin8_B_64l8m256c_fp16"
THREADS = 2
CONDITION_TOKENS, CONDITION_WIDTH = 1374, 1024
VOXELS, MESH_VOXELS, RESOLUTION = 12_000, 3000, 64
GUIDED_SIDE, GUIDED_CONDITION, GUIDED_STEPS = 10, 344, 3


@dataclass
class Work:
    """Operations of one forward: multiplications and additions each count."""

    linear: float = 0
    attention: float = 0
    convolution: float = 0

    @property
    def total(self) -> float:
        return self.linear + self.attention + self.convolution

    def seconds(self, rates: Rates) -> float:
        linear = (self.linear + self.convolution) / rates.linear
        return linear + self.attention / rates.attention


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    arguments = arguments.parse_args()
    torch.set_num_threads(THREADS)
    with torch.inference_mode():
        figures = [figure for name in arguments.rows for figure in ROWS[name]()]
    figures.append(Figure("load average of the machine meanwhile", os.getloadavg()[0]))
    return finish("trellis_cpu", figures, arguments)


def structure() -> list[Figure]:
    """One step of the structure's flow model."""
    network = made_network(STRUCTURE)
    x = _draw(1, 8, 16, 16, 16)
    return _step("structure step", network, lambda c: network(x, torch.tensor([700.0]), c))


def latent() -> list[Figure]:
    """One step of the latent's flow model; what is kept with the voxels is there already."""
    network = made_network(LATENT)
    x = SparseTensor(_draw(VOXELS, 8), _voxels(VOXELS))
    made = _seconds(lambda: _prepare(x.voxels))
    figures = _step("latent step", network, lambda c: network(x, torch.tensor([700.0]), c))
    return [*figures, Figure("latent: neighbours and cells of its voxels, once", made, "s")]


def _step(name: str, network: nn.Module, forward: Callable[[Condition], Tensor]) -> list[Figure]:
    tokens = _draw(1, CONDITION_TOKENS, CONDITION_WIDTH)
    before = measure_rates()
    with counted(network) as work:
        seconds, exact = _timed(lambda: forward(Condition(tokens)))
    after = measure_rates()
    rates = mean_rates(before, after)
    halves = half_keys(network)
    for key, tensor in network.named_parameters():
        if key in halves:
            tensor.data = tensor.data.bfloat16()
    linear_gain = linear_seconds(torch.float32) / linear_seconds(torch.bfloat16)
    half_seconds, near = _timed(lambda: forward(Condition(tokens)))
    has_bfloat16 = linear_gain > 1.7  # a CPU without it has nothing to gain
    return [
        Figure(f"{name}: a linear layer alone", rates.linear / 1e9, "GFLOP/s"),
        Figure(f"{name}: attention alone", rates.attention / 1e9, "GFLOP/s"),
        Figure(f"{name}: operations", work.total / 1e12, "TFLOP"),
        Figure(f"{name}: float32", seconds, "s"),
        Figure(f"{name}: achieved", work.total / seconds / 1e9, "GFLOP/s"),
        Figure(f"{name}: achieved / ceiling", work.seconds(rates) / seconds, at_least=0.9),
        Figure(f"{name}: bfloat16 inside", half_seconds, "s"),
        Figure(f"{name}: a bfloat16 linear layer, times as fast", linear_gain),
        Figure(
            f"{name}: bfloat16 inside, times as fast",
            seconds / half_seconds,
            at_least=1.7 if has_bfloat16 else None,
        ),
        Figure(f"{name}: error of bfloat16", 100 * _error(near, exact), "%"),
    ]


def guided() -> list[Figure]:
    """A sampling run with guidance, ours against the plain evaluation of the same network."""
    network = made_network(STRUCTURE, resolution=GUIDED_SIDE)
    noise = _draw(1, 8, *3 * (GUIDED_SIDE,))
    tokens = _draw(1, GUIDED_CONDITION, CONDITION_WIDTH)
    times, guidance = flow_times(GUIDED_STEPS, 3.0), Guidance(7.5, (0.5, 1.0))

    def plainly(x: Tensor, t: float, conditions: Sequence[Condition]) -> list[Tensor]:
        """Each condition by itself, with all its tokens, and nothing remembered."""
        time = torch.tensor([1000 * t])
        return [network(x, time, Condition(one.tokens.clone())) for one in conditions]

    def sample(velocities: Callable, free: Condition) -> Tensor:
        turns = iter(lambda: [condition], None)
        condition = Condition(tokens)
        return sample_flow(guided_velocity(velocities, turns, free, guidance), noise, times)

    network(noise, torch.tensor([1000.0]), tokens)  # warm
    before = time.process_time()
    plain_seconds, plain = _timed(lambda: sample(plainly, Condition(torch.zeros_like(tokens))))
    between = time.process_time()
    seconds, ours = _timed(lambda: sample(structure_velocities(network), Condition.zero(tokens)))
    after = time.process_time()
    return [
        Figure("guided run: plain evaluation", plain_seconds, "s"),
        Figure("guided run: ours", seconds, "s"),
        Figure("guided run: plain / ours", plain_seconds / seconds, at_least=1.1),
        Figure("guided run: plain / ours, CPU seconds", (between - before) / (after - between)),
        Figure("guided run: difference of the samples", _error(ours, plain), at_most=1e-4),
    ]


def conv() -> list[Figure]:
    """Sparse convolution 128 -> 128 on 12 000 voxels."""
    voxels = _voxels(VOXELS)
    feats, weight, bias = _draw(VOXELS, 128), _draw(128, 3, 3, 3, 128) / 27**0.5, _draw(128)
    made = _seconds(lambda: voxels.pairs)
    exact = convolve_plain(feats.double(), voxels, weight.double(), bias.double())
    worst, different, first = 0.0, 0, None
    for threads in (1, 2, 3, 4, 8):
        torch.set_num_threads(threads)
        for _ in range(3):
            got = convolve(feats, voxels, weight, bias)
            worst = max(worst, _error(got, exact))
            first = got if first is None else first
            different += not torch.equal(got, first)
    torch.set_num_threads(THREADS)
    seconds = median_seconds(lambda: convolve(feats, voxels, weight, bias), 9)
    return [
        Figure("sparse convolution: pairs of voxels", sum(len(rows) for rows, _ in voxels.pairs)),
        Figure("sparse convolution: finding them, once", made, "s"),
        Figure("sparse convolution 128 -> 128, 2 threads", seconds, "s", at_most=0.1),
        Figure("sparse convolution: error at 1, 2, 3, 4, 8 threads", worst, at_most=1e-5),
        Figure("sparse convolution: runs of 15 with other bytes", different, at_most=0),
    ]


def mesh() -> list[Figure]:
    """The mesh decoder's network, without the extraction."""
    network = made_network(MESH)
    x = SparseTensor(_draw(MESH_VOXELS, 8), _voxels(MESH_VOXELS))
    windows = [x.voxels.windows(network.config.window_size, s) for s in (0, 4)]
    calls = sum(len(groups.buckets) for groups in windows) * network.config.num_blocks / 2
    count = sum(groups.count for groups in windows) * network.config.num_blocks / 2
    times = []
    for _ in range(3):
        seconds, _fine = _timed(lambda: network(x))
        times.append(seconds)
    return [
        Figure("mesh decoder, 3000 voxels -> 192 000", statistics.median(times), "s"),
        Figure("mesh decoder: windows in all blocks", count),
        Figure("mesh decoder: attention calls", calls, at_most=count / 2),
    ]


ROWS: dict[str, Callable[[], list[Figure]]] = {
    "structure": structure,
    "latent": latent,
    "guided": guided,
    "conv": conv,
    "mesh": mesh,
}


@contextmanager
def counted(network: nn.Module) -> Iterator[Work]:
    """The operations of what the network computes meanwhile, for one object."""
    work = Work()

    def count(layer: nn.Module, inputs: tuple, _result: object) -> None:
        match layer:
            case nn.Linear():
                work.linear += 2 * inputs[0].numel() * layer.out_features
            case SelfAttention():
                work.attention += 4 * inputs[0].numel() * inputs[0].shape[-2]
            case CrossAttention():
                work.attention += 4 * inputs[0].numel() * inputs[1].tokens.shape[1]
            case SubmanifoldConv():
                pairs = sum(len(rows) for rows, _ in inputs[0].voxels.pairs)
                work.convolution += 2 * pairs * layer.weight[:, 0, 0, 0].numel()
            case SparseResBlock(double=True):  # its first convolution is worked out on the cells
                taps = 27 * len(inputs[0].voxels)
                work.convolution += 2 * taps * layer.conv1.conv.weight[:, 0, 0, 0].numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    yield work
    for hook in hooks:
        hook.remove()


def _prepare(voxels: Voxels) -> None:
    """What the latent's flow model asks of its voxels."""
    for one in (voxels, voxels.halving.coarse):
        _ = one.pairs, one.layout.groups
    _ = voxels.cell_taps


def _voxels(count: int) -> Voxels:
    places = torch.from_numpy(knot_shell(count, RESOLUTION))
    return Voxels(F.pad(places, (1, 0)))


def _draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def _error(got: Tensor, wanted: Tensor) -> float:
    """Relative, over all numbers."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


def _timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _seconds(work: Callable[[], object]) -> float:
    return _timed(work)[0]


if __name__ == "__main__":
    raise SystemExit(main())
