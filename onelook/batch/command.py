"""`onelook batch IN OUT`: many pictures on Ray Data, a row for each, resumed where it was."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onelook.batch.pipeline import require_ray, run_pipeline, start_ray
from onelook.batch.results import FORMATS, finished_row, write_results
from onelook.batch.sources import Item, list_items
from onelook.batch.stages import Job, Row
from onelook.errors import OptionError, OutputError
from onelook.options import Options, parse_options
from onelook.setup_arguments import add_setup_arguments

OPTIONS = tuple(Options.__dataclass_fields__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `onelook batch` beside the options of a generation."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="IN",
        help="folder with pictures, text file with a path or URL a line, or parquet file",
    )
    parser.add_argument(
        "output",
        type=Path,
        metavar="OUT",
        help="folder: one subfolder per picture, and the table of results; on a cluster IN and OUT"
        " must be there under the same path on every machine",
    )
    parser.add_argument(
        "--column",
        help="column of the parquet file with paths or URLs (default: source, path, url or image)",
    )
    parser.add_argument(
        "--results", default="parquet", help="format of the table: parquet, csv or jsonl"
    )
    parser.add_argument("--address", help="Ray cluster to use, such as auto or ray://host:10001")
    parser.add_argument(
        "--engines",
        type=int,
        help="processes that hold a model; more than there are GPUs share them (default: one per"
        " GPU, or one)",
    )
    parser.add_argument(
        "--allow_urls",
        action="store_true",
        help="also fetch URLs: https and public addresses only, at most 25 MB and 20 s each",
    )
    parser.add_argument(
        "--redo", action="store_true", help="make everything again, also what is already there"
    )
    add_setup_arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only the summary")


def run(arguments: argparse.Namespace) -> int:
    """Work through the pictures; 0 when all succeeded, 1 when one failed.

    Raises OptionError for wrong arguments, a missing extra, and an input with nothing to do.
    """
    _check(arguments)
    job = Job(
        _options(vars(arguments)),
        str(arguments.output.resolve()),
        arguments.device,
        arguments.vram,
        arguments.weights,
        arguments.allow_urls,
    )
    require_ray()
    items = list_items(arguments.input, arguments.column, leave_out=arguments.output)
    _prepare(arguments.output)
    done = {} if arguments.redo else _already_done(items, job)
    rows = dict(done)
    try:
        for row in _made([item for item in items if item.name not in done], job, arguments):
            rows[row["name"]] = row
            if not arguments.quiet:
                print(_line(row, len(rows), len(items)), flush=True)
    finally:
        if rows:  # also after an interrupt: what is done is in the table
            ordered = [rows[item.name] for item in items if item.name in rows]
            table = write_results(ordered, arguments.output, arguments.results)
    failed = sum(row["status"] == "failed" for row in rows.values())
    print(
        f"{len(items)} pictures: {len(rows) - failed - len(done)} made, {len(done)} were already"
        f" there, {failed} failed; {table}"
    )
    return 1 if failed else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.results not in FORMATS:
        raise OptionError(f"results must be one of {', '.join(FORMATS)}, got {arguments.results!r}")
    if arguments.engines is not None and arguments.engines < 1:
        raise OptionError(f"engines must be at least 1, got {arguments.engines}")


def _options(given: dict[str, Any]) -> Options:
    known = Options.__dataclass_fields__
    return parse_options({k: v for k, v in given.items() if k in known and v is not None})


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the output folder cannot be written ({error.strerror}); choose another"
        ) from error


def _already_done(items: list[Item], job: Job) -> dict[str, Row]:
    found = {item.name: finished_row(item, job) for item in items}
    return {name: row for name, row in found.items() if row is not None}


def _made(items: list[Item], job: Job, arguments: argparse.Namespace) -> Iterator[Row]:
    """The rows of these items, as they come. Ray is not even started for none."""
    if not items:
        return
    start_ray(arguments.address)
    try:
        yield from run_pipeline(items, job, arguments.engines)
    finally:
        import ray

        ray.shutdown()


def _line(row: Row, number: int, total: int) -> str:
    what = row["error"] or f"{row['seconds']:.1f} s"
    return f"[{number}/{total}] {row['source']}: {what}"
