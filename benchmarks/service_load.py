"""Load: 64 clients at once on the REST service, and 500 predictions in a row through Cog's server.

    python benchmarks/service_load.py [--check] [--write] [--clients 64] [--predictions 500]

The embedded default, small settings. Accepted must be exactly what is in work and in the queue; all
others 429 with Retry-After; each model that of its own picture. Meanwhile health is asked all the
time. Cog's server is watched for memory, files and descriptors that grow.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import trimesh
from hostile_pictures import children
from PIL import Image, ImageDraw
from table import RELIABILITY_PAGE, Figure, finish, parser

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.cog_server import CogServer, data_url, decode_data_url  # noqa: E402
from helpers.pictures import mushroom_png  # noqa: E402
from helpers.rest_server import Answer, RestServer  # noqa: E402

OPTIONS = {"decimation_target": 20000, "texture_size": 1024, "generate_video": False}
SMALL = {"decimation_target": 500, "texture_size": 256, "generate_video": False}
SLOW = {"decimation_target": 2000000, "texture_size": 4096}  # holds the worker while others come
QUEUE = 8


def disc(color: tuple[int, int, int]) -> bytes:
    """A disc of one colour on nothing."""
    image = Image.new("RGBA", (96, 96))
    ImageDraw.Draw(image).ellipse((12, 12, 83, 83), fill=(*color, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def color_of(model: bytes) -> np.ndarray:
    """(3,) the colour that most of the model's texture has."""
    (mesh,) = trimesh.load_scene(io.BytesIO(model), file_type="glb").geometry.values()
    texture = mesh.visual.material.baseColorTexture.convert("RGB")
    return np.array(max(texture.getcolors(2**24))[1], int)


def colors(count: int) -> list[tuple[int, int, int]]:
    """Far enough from each other to be told apart after baking."""
    levels = (20, 90, 160, 230)
    every = [(r, g, b) for r in levels for g in levels for b in levels]
    return [every[number * 37 % len(every)] for number in range(count)]


class HealthWatch:
    """Asks /health all the time; seconds of each answer."""

    def __init__(self, server: RestServer):
        self.seconds: list[float] = []
        self._server, self._over = server, threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> HealthWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.wait(0.02):
            begin = time.perf_counter()
            assert self._server.health()["model_loaded"]
            self.seconds.append(time.perf_counter() - begin)

    @property
    def p95(self) -> float:
        return 1000 * statistics.quantiles(self.seconds, n=20)[18]


def rush(server: RestServer, clients: int) -> list[Figure]:
    """All clients at once, while the worker is busy with a job of its own."""
    wanted = colors(clients)
    busy = server.start(mushroom_png(), **SLOW)
    server.wait_for(busy, "processing")
    with ThreadPoolExecutor(clients) as threads, HealthWatch(server) as health:
        together = threading.Barrier(clients)

        def ask(color: tuple[int, int, int]) -> Answer:
            together.wait()
            return server.create(disc(color), **OPTIONS)

        answers = list(threads.map(ask, wanted))
    server.wait_for(busy, seconds=300)
    served = [(c, a.body) for c, a in zip(wanted, answers, strict=True) if a.code == 200]
    refused = [answer for answer in answers if answer.code == 429]
    timed = [answer for answer in refused if int(answer.headers.get("retry-after", 0)) >= 1]
    mixed = 0
    for color, body in served:
        made = color_of(server.request("GET", body["model_url"]).content)
        mixed += int(np.abs(made - color).max() > 30)
    return [
        Figure("clients at once", clients),
        Figure("accepted, the one in work included", 1 + len(served), at_least=1 + QUEUE,
               at_most=1 + QUEUE),
        Figure("refused with 429", len(refused)),
        Figure("429 without Retry-After", len(refused) - len(timed), at_most=0),
        Figure("other answers", clients - len(served) - len(refused), at_most=0),
        Figure("models of another's picture", mixed, at_most=0),
        Figure("health meanwhile: answers", len(health.seconds)),
        Figure("health meanwhile: 95th percentile", health.p95, "ms", at_most=50),
        Figure("health meanwhile: slowest", 1000 * max(health.seconds), "ms"),
    ]  # fmt: skip


def health_while_predicting(server: RestServer) -> list[Figure]:
    """One prediction with default options, nothing else."""
    with HealthWatch(server) as health:
        code = server.create((ROOT / "examples" / "rocket.png").read_bytes()).code
    assert code == 200, code
    return [
        Figure("health while a prediction runs: answers", len(health.seconds)),
        Figure("health while a prediction runs: 95th percentile", health.p95, "ms", at_most=50),
    ]


def usage_of(server: CogServer) -> tuple[float, int]:
    """-> memory in MB and open descriptors of the server and all below it."""
    processes, memory, descriptors = [server.process.pid], 0.0, 0
    for process in processes:
        processes += children(process)
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        memory += pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        descriptors += len(os.listdir(f"/proc/{process}/fd"))
    return memory, descriptors


def one_after_the_other(folder: Path, count: int) -> list[Figure]:
    """The same and other pictures through Cog's server; every one must succeed."""
    memory, descriptors, failed, wanted = [], [], 0, colors(64)
    with CogServer(folder) as server:
        for number in range(count):
            answer = server.predict(data_url(disc(wanted[number % len(wanted)])), **SMALL).body
            if answer["status"] != "succeeded":
                failed += 1
            elif number % 50 == 0:
                made = color_of(decode_data_url(answer["output"]["model_file"])[1])
                failed += int(np.abs(made - wanted[number % len(wanted)]).max() > 30)
            megabytes, opened = usage_of(server)
            memory.append(megabytes)
            descriptors.append(opened)
        (scratch,) = server.tmp.iterdir()
        left = [path for path in scratch.rglob("*") if path.name != "output.glb"]
    settled = count // 5  # caches fill in the beginning
    slope = np.polyfit(np.arange(count - settled), memory[settled:], 1)[0] * (count - settled)
    opened = descriptors[settled:]
    return [
        Figure("Cog: predictions in a row", count),
        Figure("Cog: failed, or another's picture", failed, at_most=0),
        Figure("Cog: memory at the end", memory[-1], "MB"),
        Figure("Cog: growth over the run", 100 * slope / memory[settled], "%", at_most=1),
        Figure("Cog: descriptors, most - least", max(opened) - min(opened), at_most=2),
        Figure("Cog: files left beside the last answer", len(left), at_most=0),
        Figure("Cog: folders left at the end", len(list(server.tmp.iterdir())), at_most=0),
    ]


def main() -> int:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--clients", type=int, default=64)
    made.add_argument("--predictions", type=int, default=500)
    arguments = made.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RestServer(folder / "rest", {"queue": QUEUE}) as server:
            figures = health_while_predicting(server)
            figures += rush(server, arguments.clients)
            figures.append(Figure("worker processes that ended", server.log.count("worker ended"),
                                  at_most=0))  # fmt: skip
        figures += one_after_the_other(folder / "cog", arguments.predictions)
    figures.append(Figure("load average of the machine meanwhile", os.getloadavg()[1]))
    return finish("service_load", figures, arguments, RELIABILITY_PAGE)


if __name__ == "__main__":
    sys.exit(main())
