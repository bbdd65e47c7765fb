"""Door to door: seconds from the start of the Cog server's process until it is READY.

    python benchmarks/door_to_door.py [--check] [--write] [--folder PLACE] [--clean] [--runs 3]

The real server with the real predictor, which opens TRELLIS in setup() as well: made-up
checkpoints of full size (see cold_start.py), 4.2 GB with the picture encoder, in the page cache;
kernels compiled before. Medians of three starts.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cold_start import add_folder, made_folder, read_all
from made_checkpoints import make_dino, make_trellis
from table import Figure, finish, parser

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.cog_server import CogServer  # noqa: E402 (the tests' helpers are no package)

# What `auto` opens by itself on a GPU it is told to open here, so that a CPU measures the same.
PREDICTOR = """
import sys, time
MARK = "door to door"
started = float(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]) / TICKS
print(MARK, "interpreter", time.clock_gettime(time.CLOCK_BOOTTIME) - started, flush=True)

class Lap:
    def __init__(self):
        self.last = time.perf_counter()
    def __call__(self, name):
        now = time.perf_counter()
        print(MARK, name, now - self.last, flush=True)
        self.last = now

lap = Lap()
sys.path.insert(0, "REPOSITORY")
from real_predict import Output, Predictor as RealPredictor
lap("import predict.py")

class Predictor(RealPredictor):
    def setup(self) -> None:
        lap("server in between")
        super().setup()
        lap("its setup")
        from onelook.report import Report
        import torch
        lap("import torch")
        import trellis_backend.backend
        lap("import trellis_backend")
        from transformers import Dinov2WithRegistersModel
        lap("import transformers")
        self.engine.open_backend("trellis", Report())
        lap("open the checkpoint")
"""


def main() -> int:
    arguments = add_folder(parser(__doc__.splitlines()[0]))
    arguments.add_argument("--runs", type=int, default=3, help="starts of the server")
    arguments = arguments.parse_args()
    root = made_folder(arguments)
    if arguments.clean:
        shutil.rmtree(root, ignore_errors=True)
        return 0
    files = [
        path
        for folder in (make_trellis(root), make_dino(root))
        for path in sorted(folder.rglob("*.safetensors"))
    ]
    os.environ["ONELOOK_WEIGHTS"] = str(root)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without stopping the server
    with tempfile.TemporaryDirectory() as folder:
        starts = [_start(Path(folder) / str(run), files) for run in range(arguments.runs + 1)]
    starts = starts[1:]  # the first may have compiled kernels
    figures = [Figure("process start to READY", _median(starts, "ready"), "s", at_most=6)]
    figures += [
        Figure(f"of it: {name}", _median(starts, name), "s")
        for name in starts[0]
        if name != "ready"
    ]
    figures.append(Figure("load average of the machine meanwhile", os.getloadavg()[0]))
    return finish("door_to_door", figures, arguments)


def _start(folder: Path, files: list[Path]) -> dict[str, float]:
    """Start the server once: seconds until READY, and of each part of the way."""
    place = folder / "predictor"
    (place / ".cog").mkdir(parents=True)
    shutil.copy(ROOT / ".cog" / "openapi_schema.json", place / ".cog")
    shutil.copy(ROOT / "predict.py", place / "real_predict.py")
    ticks = str(os.sysconf("SC_CLK_TCK"))
    text = PREDICTOR.replace("REPOSITORY", str(ROOT)).replace("TICKS", ticks)
    (place / "predict.py").write_text(text)
    read_all(files)
    start = time.perf_counter()
    with CogServer(folder, cwd=place) as server:
        parts = {"ready": time.perf_counter() - start}
        log = server.log
    for name, seconds in re.findall(r"door to door ([a-z_. ]+) ([\d.]+)", log):
        parts[name] = float(seconds)
    return parts


def _median(starts: list[dict[str, float]], name: str) -> float:
    return statistics.median(start[name] for start in starts)


if __name__ == "__main__":
    sys.exit(main())
