"""Every backend on a GPU: seconds per stage and peak memory, all networks resident and low VRAM.

    python benchmarks/gpu.py [--backend NAME ...] [--check] [--write] [--device cuda:0] [--runs 3]
                             [--tiny] [--option NAME=VALUE ...] [--folder PLACE] [--clean]

Networks of full size with random weights, which are made once in PLACE (see cold_start.py); what
they say of the shape is replaced by a fixed one, so that the work after them is the usual one. A
run is a request to the engine: one picture to GLB and video with the default options. Medians over
RUNS after a first one, which compiles kernels and pins weights. Peak memory is what torch allocated
at most; of the whole device, caches and kernels included, it is watched by itself. On a CPU, and
with tiny checkpoints (--tiny), it only shows that everything runs: there are no targets then, and
on a CPU there is no low VRAM.

A backend takes part by a module gpu_NAME.py with a `CASE` (see gpu_case.py).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from cold_start import add_folder, made_folder
from gpu_case import Case, Run
from table import Figure, finish, parser

from onelook.engine import Engine
from onelook.options import Options, parse_options
from onelook.report import Report

HERE = Path(__file__).parent
PICTURE = HERE.parent / "examples" / "robot.png"
NAMES = sorted(path.stem[4:] for path in HERE.glob("gpu_*.py") if path.stem != "gpu_case")
WATCH_SECONDS = 0.005


def main(argv: list[str] | None = None) -> int:
    arguments = add_folder(parser(__doc__.splitlines()[0]))
    arguments.add_argument("--backend", nargs="+", choices=NAMES, default=NAMES)
    arguments.add_argument("--device", default="cuda:0")
    arguments.add_argument("--runs", type=int, default=3, help="requests after the first")
    arguments.add_argument("--tiny", action="store_true", help="tiny networks and outputs")
    arguments.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    arguments = arguments.parse_args(argv)
    root = made_folder(arguments)
    if arguments.clean:
        shutil.rmtree(root, ignore_errors=True)
        return 0
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device: nothing measured", file=sys.stderr)
        return 0
    sys.path.insert(0, str(HERE.parent / "tests"))  # whose helpers write the tiny checkpoints
    code = 0
    for name in arguments.backend:
        case = importlib.import_module(f"gpu_{name}").CASE
        with tempfile.TemporaryDirectory() as folder:
            write = case.write_tiny if arguments.tiny else case.write_weights
            os.environ.update(write(Path(folder) if arguments.tiny else root))
            runs = case.runs if arguments.device.startswith("cuda") else case.runs[:1]
            figures = [figure for run in runs for figure in measure(case, run, arguments)]
        code |= finish(f"gpu_{name}", figures, arguments)
    return code


def measure(case: Case, run: Run, arguments: argparse.Namespace) -> list[Figure]:
    """All figures of one way to run a backend."""
    has_targets = arguments.device.startswith("cuda") and not arguments.tiny
    if not has_targets:
        run = replace(run, surface_seconds=None, file_seconds=None, peak_gb=None)
    options = parse_options(
        {
            "model": case.model,
            **run.options,
            **(case.tiny_options if arguments.tiny else {}),
            **dict(text.split("=", 1) for text in arguments.option),
        }
    )
    engine = Engine(device=arguments.device, vram=run.vram)
    start = time.perf_counter()
    backend = engine.open_backend(case.model, Report())
    opened = time.perf_counter() - start
    case.prepare(backend)
    first = _request(engine, options)
    requests = [_request(engine, options) for _ in range(arguments.runs)] or [first]
    surface_steps = [f"seconds.{step}" for step in ("cut_out", *backend.step_shares)]

    def median(key: str) -> float:
        return statistics.median(one.metrics.get(key, 0.0) for one in requests)

    seconds = statistics.median(one.seconds for one in requests)
    surface = statistics.median(
        sum(one.metrics.get(step, 0.0) for step in surface_steps) for one in requests
    )
    stages = [key for key in requests[0].metrics if key.startswith("seconds.")]
    figures = [
        Figure("open the checkpoint", opened, "s"),
        Figure("first request", first.seconds, "s"),
        *(Figure(key.removeprefix("seconds."), median(key), "s") for key in stages),
        Figure("picture to Surface", surface, "s", at_most=run.surface_seconds),
        Figure("picture to files", seconds, "s", at_most=run.file_seconds),
    ]
    if arguments.device.startswith("cuda"):
        allocated = max(one.allocated / 1e9 for one in requests)
        allocated = max(allocated, median("residency.peak_gb"))
        figures += [
            Figure("peak memory, allocated by torch", allocated, "GB", at_most=run.peak_gb),
            Figure("peak memory, whole device", max(o.device for o in requests) / 1e9, "GB"),
            Figure("weights moved per request", median("residency.moved_gb"), "GB"),
        ]
    else:
        figures.append(Figure("peak memory of the process", median("peak_memory_gb"), "GB"))
    del engine, backend
    gc.collect()
    return [replace(figure, name=f"{run.name}: {figure.name}") for figure in figures]


@dataclass(frozen=True)
class _Request:
    """seconds by the clock; allocated, device: peak bytes, of torch and of the whole device."""

    seconds: float
    metrics: dict
    allocated: int
    device: int


def _request(engine: Engine, options: Options) -> _Request:
    with tempfile.TemporaryDirectory() as folder, _Watch(engine.device) as watch:
        start = time.perf_counter()
        result = engine.generate(PICTURE, options, Path(folder))
        seconds = time.perf_counter() - start
    return _Request(seconds, result.metrics, watch.allocated, watch.device_peak)


class _Watch:
    """Peak memory of a GPU while it is open; nothing on a CPU."""

    def __init__(self, device: str):
        self.allocated = self.device_peak = 0
        self._device = device if device.startswith("cuda") else None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        if self._device:
            torch.cuda.reset_peak_memory_stats(self._device)
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        if self._device:
            self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(WATCH_SECONDS):
            free, total = torch.cuda.mem_get_info(self._device)
            self.device_peak = max(self.device_peak, total - free)
            # stages reset torch's own peak, so it is read as often
            peak = torch.cuda.max_memory_allocated(self._device)
            self.allocated = max(self.allocated, peak)


if __name__ == "__main__":
    sys.exit(main())
