"""Cold start: seconds and memory until all networks of a checkpoint are there, in a new process.

    python benchmarks/cold_start.py [--check] [--write] [--folder PLACE] [--clean] [--runs 3]

Made-up checkpoints of full size are written into the folder `onelook-made-up` of PLACE, by default
the user's cache: 3 GB once; --clean removes them and does nothing else. Every way is a process of
its own, three times, median; files are in the page cache; importing packages is not in the seconds.
CPU seconds are of all threads, of one process: what other programs on the machine change least.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from made_checkpoints import (
    TRELLIS,
    TRELLIS2,
    TRELLIS_ROLES,
    make_trellis,
    make_trellis2,
    read_key_list,
)
from table import Figure, finish, parser

PAGE = 4096
OWN_FOLDER = "onelook-made-up"


def main() -> int:
    arguments = add_folder(parser(__doc__.splitlines()[0]))
    arguments.add_argument("--runs", type=int, default=3, help="processes per way")
    arguments.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # the child process
    arguments = arguments.parse_args()
    root = made_folder(arguments)
    if arguments.way:
        print(json.dumps(WAYS[arguments.way](root)))
        return 0
    if arguments.clean:
        shutil.rmtree(root, ignore_errors=True)
        return 0
    make_trellis(root)
    make_trellis2(root)
    figures = measure(root, arguments.runs)
    figures.append(Figure("load average of the machine meanwhile", os.getloadavg()[0]))
    return finish("cold_start", figures, arguments)


def add_folder(arguments: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments that say where made-up checkpoints lie."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    arguments.add_argument("--folder", type=Path, default=cache, help="where they are written")
    arguments.add_argument("--clean", action="store_true", help="remove them, measure nothing")
    return arguments


def made_folder(arguments: argparse.Namespace) -> Path:
    """A folder that is this project's alone, so that --clean removes nothing else."""
    return arguments.folder.expanduser().resolve() / OWN_FOLDER


def measure(root: Path, runs: int) -> list[Figure]:
    """All figures. The plain way runs between the others, so that all see the same machine."""
    files = sorted((root / TRELLIS / "ckpts").glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    results: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(runs):
        for way in WAYS:
            if way != "hollow":
                read_all(files)  # into the page cache
            results[way].append(_in_own_process(way, root))

    def middle(way: str, name: str) -> float:
        return statistics.median(result[name] for result in results[way])

    opening = middle("mapped", "seconds")
    return [
        Figure("files", size / 1e9, "GB"),
        Figure("files whose length is not the published one", _other_lengths(files), at_most=0),
        Figure("importing torch and the networks", middle("mapped", "import_seconds"), "s"),
        Figure("open: all six networks", opening, "s", at_most=1),
        Figure("open: CPU seconds", middle("mapped", "cpu_seconds"), "s"),
        Figure("open: tensors left without memory", middle("mapped", "empty"), at_most=0),
        Figure("open: peak memory", middle("mapped", "peak") / 1e9, "GB"),
        Figure("touch every page", middle("mapped", "touch_seconds"), "s"),
        Figure(
            "touched: peak memory / files", middle("mapped", "touched_peak") / size, at_most=1.15
        ),
        Figure("plain: construct, load_file, load_state_dict", middle("plain", "seconds"), "s"),
        Figure("plain: CPU seconds", middle("plain", "cpu_seconds"), "s"),
        Figure("plain: peak memory", middle("plain", "peak") / 1e9, "GB"),
        Figure("plain / open: seconds", middle("plain", "seconds") / opening, at_least=20),
        Figure("open and cast to float32", middle("float32", "seconds"), "s", at_most=8),
        Figure("open and cast: CPU seconds", middle("float32", "cpu_seconds"), "s"),
        Figure("open and cast: peak memory", middle("float32", "peak") / 1e9, "GB"),
        Figure("TRELLIS.2: files", middle("hollow", "bytes") / 1e9, "GB"),
        Figure("TRELLIS.2: open", middle("hollow", "seconds"), "s", at_most=2),
        Figure("TRELLIS.2: peak memory", middle("hollow", "peak") / 1e9, "GB", at_most=24),
    ]


def _other_lengths(files: list[Path]) -> int:
    wanted = {stem: read_key_list("trellis", stem) for stem in TRELLIS_ROLES.values()}
    lengths = {path.stem: path.stat().st_size for path in files}
    return sum(lengths.get(stem) != one.published_bytes for stem, one in wanted.items())


def _in_own_process(way: str, root: Path) -> dict:
    command = [sys.executable, __file__, "--way", way, "--folder", root.parent]
    environment = {**os.environ, "ONELOOK_WEIGHTS": str(root)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def read_all(files: list[Path]) -> None:
    """Bring files into the page cache."""
    block = bytearray(1 << 24)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass


# What the child processes do.


class Clock:
    """Started when made."""

    def __init__(self):
        self._start = time.perf_counter(), time.process_time()

    def figures(self) -> dict[str, float]:
        """Seconds and CPU seconds since the start, peak memory of the process in bytes."""
        seconds, cpu_seconds = self._start
        return {
            "seconds": time.perf_counter() - seconds,
            "cpu_seconds": time.process_time() - cpu_seconds,
            "peak": _peak(),
        }


def _open_mapped(root: Path) -> dict:
    """Our way: meta device, mapped files, assigned."""
    import_seconds = _seconds(_import_networks)
    from onelook.weights.opening import tensors_on_meta

    clock = Clock()
    networks = _open_trellis(root)
    figures = clock.figures()
    empty = sum(len(tensors_on_meta(network)) for network in networks.values())
    return {
        **figures,
        "import_seconds": import_seconds,
        "empty": empty,
        "touch_seconds": _seconds(lambda: _touch(networks)),
        "touched_peak": _peak(),
    }


def _open_in_float32(root: Path) -> dict:
    """What a run on a CPU needs: the stored halves as float32, by the residency that runs use."""
    _import_networks()
    from onelook.residency.device import open_device
    from onelook.residency.manager import Residency
    from onelook.residency.networks import TO_FLOAT32, Network
    from onelook.residency.plan import Stage

    clock = Clock()
    networks = {name: Network(n, TO_FLOAT32) for name, n in _open_trellis(root).items()}
    stages = [Stage(name, (name,)) for name in networks]
    residency = Residency(networks, stages, open_device("cpu"))
    for name in networks:
        with residency.stage(name):
            pass
    return clock.figures()


def _load_plainly(root: Path) -> dict:
    """The way most programs take: torch's initial values, then the file's over them."""
    networks = _import_networks()
    from safetensors.torch import load_file

    from onelook.weights.layouts import read_model_config

    clock = Clock()
    loaded = []
    for stem in TRELLIS_ROLES.values():
        path = root / TRELLIS / "ckpts" / f"{stem}.json"
        config = read_model_config(path)
        network = networks[config.name](config.args)
        network.load_state_dict(load_file(path.with_suffix(".safetensors")))
        loaded.append(network.eval())
    return clock.figures()


def _open_hollow(root: Path) -> dict:
    """TRELLIS.2: 16 GB. Its networks stand in as trees of modules made from the key lists."""
    import torch  # noqa: F401

    from onelook.weights.layouts import read_pipeline
    from onelook.weights.opening import open_model

    size, opened = 0, []
    clock = Clock()
    pipeline = read_pipeline(root / TRELLIS2)
    for role in pipeline.models:
        stem = pipeline.stem(role)
        shapes = read_key_list("trellis2", stem.name).tensors
        path = stem.with_name(stem.name + ".safetensors")
        opened.append(open_model(lambda shapes=shapes: module_tree(shapes), path))
        size += path.stat().st_size
    return {**clock.figures(), "bytes": size}


def _import_networks() -> dict:
    from trellis_backend.networks import NETWORKS

    return NETWORKS


def _open_trellis(root: Path) -> dict:
    from onelook.weights.layouts import read_pipeline
    from onelook.weights.opening import open_pair

    pipeline = read_pipeline(root / TRELLIS)
    networks = _import_networks()
    return {role: open_pair(pipeline.stem(role), networks) for role in pipeline.models}


def module_tree(shapes: dict[str, list[int]]):
    """Modules nested as the keys' dots say, with a parameter for each key."""
    import torch
    from torch import nn

    tree = nn.Module()
    for key, shape in shapes.items():
        *folders, name = key.split(".")
        place = tree
        for folder in folders:
            if folder not in place._modules:
                place.add_module(folder, nn.Module())
            place = place._modules[folder]
        place.register_parameter(name, nn.Parameter(torch.empty(shape)))
    return tree


def _touch(networks: dict) -> int:
    """Read one byte of every page."""
    import torch

    return sum(
        int(tensor.detach().reshape(-1).view(torch.uint8)[::PAGE].sum())
        for network in networks.values()
        for tensor in network.state_dict().values()
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak() -> int:
    """Peak resident bytes of this process, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


WAYS: dict[str, Callable[[Path], dict]] = {
    "mapped": _open_mapped,
    "plain": _load_plainly,
    "float32": _open_in_float32,
    "hollow": _open_hollow,
}

if __name__ == "__main__":
    sys.exit(main())
