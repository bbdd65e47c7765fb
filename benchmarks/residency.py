"""Residency on a GPU: bytes moved, overlap, peak memory and time, against shuttling by hand.

    python benchmarks/residency.py [--check] [--write] [--scale 1.0]

The networks are transformers of TRELLIS-image-large's sizes in half precision with made-up
weights, written to a temporary folder and mapped, and are called as often as TRELLIS calls them
(batch of two for guidance). Times are medians of three after one prediction to warm up; the first
prediction, which also pins the weights, is reported by itself. Without a GPU it says so and
measures nothing.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from table import Figure, finish, parser
from torch import Tensor, nn
from torch.nn import functional

from onelook.residency.device import Device, open_device
from onelook.residency.manager import Residency
from onelook.residency.networks import Network
from onelook.residency.plan import Level, Stage

WIDTH, HEADS = 1024, 16
RUNS = 3


@dataclass(frozen=True)
class Part:
    """A network of the pipeline: parameters in millions, tokens, calls per prediction."""

    millions: int
    tokens: int
    calls: int


# Parameters: TRELLIS-image-large and DINOv2 ViT-L/14. Tokens: a 16^3 latent; 2850 of 12,000 voxels.
PARTS = {
    "encoder": Part(304, 1374, 1),
    "structure_flow": Part(556, 4096, 25),
    "structure_decoder": Part(74, 4096, 1),
    "latent_flow": Part(600, 2850, 25),
    "mesh_decoder": Part(91, 3000, 1),
}


class Block(nn.Module):
    """tokens (B, L, C) -> (B, L, C), a transformer's block of 12 C^2 weights."""

    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)  # (B, H, L, D)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, millions: float):
        super().__init__()
        depth = max(3, round(millions * 1e6 / (12 * WIDTH**2)))
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--scale", type=float, default=1.0, help="of the networks' sizes")
    arguments = arguments.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured", file=sys.stderr)
        return 0
    return finish("residency", measure(open_device("cuda:0"), arguments.scale), arguments)


def measure(device: Device, scale: float, dtype: torch.dtype = torch.float16) -> list[Figure]:
    """All figures of one device; the networks are `scale` times as large as the real ones."""
    with tempfile.TemporaryDirectory() as folder:
        for name, part in PARTS.items():
            _write(part.millions * scale, dtype, Path(folder) / name)
        by_hand = _shuttle_by_hand(_open_all(Path(folder), scale), device, dtype)
        results = {level: _run_level(Path(folder), scale, level, device, dtype) for level in Level}
    weights = results[Level.ALL]["residency.weights_gb"]
    everything, stagewise = results[Level.ALL], results[Level.STAGE]
    figures = [
        Figure("weights of all networks", weights, "GB"),
        Figure("shuttled by hand: a prediction", by_hand, "s"),
    ]
    for level, result in results.items():
        figures += [
            Figure(f"{level}: first prediction", result["first"], "s"),
            Figure(f"{level}: a prediction", result["later"], "s"),
            Figure(f"{level}: moved / weights", result["residency.moved_gb"] / weights),
            Figure(f"{level}: peak / weights", result["residency.peak_gb"] / weights),
            Figure(f"{level}: overlap", _overlap(result)),
        ]
    once = stagewise["residency.moved_gb"] / weights
    figures += [
        Figure("stage: each network moved once", once, at_least=0.9999, at_most=1.0001),
        Figure("stage / all: time", stagewise["later"] / everything["later"], at_most=1.25),
        Figure("stage / by hand: time", stagewise["later"] / by_hand, at_most=1),
        Figure("stage: overlap of copies", _overlap(stagewise), at_least=0.5),
    ]
    return figures


def _overlap(result: dict) -> float:
    """Share of the copying during which the computing went on; 1 where nothing was copied."""
    copied = result["residency.copy_seconds"]
    return 1 - result["residency.wait_seconds"] / copied if copied else 1.0


def _write(millions: float, dtype: torch.dtype, path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    pool = (0.02 * torch.randn(4 * WIDTH**2, generator=draw)).to(dtype)
    with torch.device("meta"):
        shapes = {key: t.shape for key, t in Transformer(millions).state_dict().items()}
    save_file(
        {k: pool[: shape.numel()].reshape(shape).clone() for k, shape in shapes.items()}, path
    )


def _open_all(folder: Path, scale: float) -> dict[str, nn.Module]:
    """The networks with their files mapped, as `onelook.weights` opens them."""
    modules = {}
    for name, part in PARTS.items():
        with torch.device("meta"):
            module = Transformer(part.millions * scale)
        with safe_open(folder / name, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in module.state_dict()}
        module.load_state_dict(tensors, assign=True)
        modules[name] = module.requires_grad_(False).eval()
    return modules


def _run_level(
    folder: Path, scale: float, level: Level, device: Device, dtype: torch.dtype
) -> dict[str, float]:
    modules = _open_all(folder, scale)
    residency = Residency(
        {name: Network(module, blocks=("blocks",)) for name, module in modules.items()},
        [Stage(name, (name,)) for name in modules],
        device,
    )

    def predict() -> None:
        with residency.prediction(level=level):
            for name, module in modules.items():
                with residency.stage(name):
                    _call(module, PARTS[name], device, dtype)

    first = _seconds(predict)
    predict()
    later = statistics.median(_seconds(predict) for _ in range(RUNS))
    figures = residency.metrics()
    residency.release()
    return {**figures, "first": first, "later": later}


def _shuttle_by_hand(modules: dict[str, nn.Module], device: Device, dtype: torch.dtype) -> float:
    """What low-memory modes usually do: `.to(device)` before a stage, `.to("cpu")` after it."""

    def predict() -> None:
        for name, module in modules.items():
            module.to(device.torch_device)
            _call(module, PARTS[name], device, dtype)
            device.synchronize()
            module.to("cpu")

    predict()
    return statistics.median(_seconds(predict) for _ in range(RUNS))


@torch.inference_mode()
def _call(module: nn.Module, part: Part, device: Device, dtype: torch.dtype) -> None:
    x = torch.zeros(2, part.tokens, WIDTH, device=device.torch_device, dtype=dtype)
    for _ in range(part.calls):
        x = module(x)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
