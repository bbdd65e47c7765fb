"""What every benchmark shares: figures with targets, one table, `--check` and `--write`.

A benchmark collects `Figure`s and ends with `finish`. The table goes to standard output; `--write`
also puts it into its page in docs/ between the benchmark's two markers; `--check` exits 1 and
names every figure that misses its target.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
PERFORMANCE_PAGE = DOCS / "performance.md"
RELIABILITY_PAGE = DOCS / "reliability.md"


@dataclass(frozen=True)
class Figure:
    """One measured number. `at_most` or `at_least` is its target; neither: it is only reported."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def held(self) -> bool:
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    def row(self) -> str:
        target, held = "", ""
        if self.at_most is not None:
            target = f"<= {self.at_most:g} {self.unit}"
        elif self.at_least is not None:
            target = f">= {self.at_least:g} {self.unit}"
        if target:
            held = "yes" if self.held else "**no**"
        return f"| {self.name} | {self.value:.4g} {self.unit} | {target} | {held} |"


def median_seconds(work: Callable[[], object], runs: int = 3) -> float:
    """Median wall time of `work` over `runs` runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments every benchmark takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    made.add_argument("--write", action="store_true", help="put the table into its page in docs/")
    return made


def machine() -> str:
    """Processor and cores, for the line above a table."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, Python {platform.python_version()}"


def finish(
    name: str, figures: list[Figure], arguments: argparse.Namespace, page: Path = PERFORMANCE_PAGE
) -> int:
    """Print the table, write it into `page` where asked, and return the exit code."""
    lines = ["| figure | measured | target | held |", "| --- | --- | --- | --- |"]
    table = "\n".join([f"Measured on: {machine()}.", "", *lines, *(f.row() for f in figures)])
    print(table)
    if arguments.write:
        _write(name, table, page)
    missed = [figure for figure in figures if not figure.held]
    for figure in missed:
        print(f"missed: {figure.name}: {figure.value:.4g} {figure.unit}", file=sys.stderr)
    return 1 if missed and arguments.check else 0


def _write(name: str, table: str, path: Path) -> None:
    page = path.read_text()
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in page or end not in page:
        raise ValueError(f"docs/{path.name} lacks the markers {start} and {end}")
    before, rest = page.split(start, 1)
    after = rest.split(end, 1)[1]
    path.write_text(f"{before}{start}\n{table}\n{end}{after}")
