"""What happens to each picture: read, make, export. No stage ever raises for a picture.

They are stages so that each can run where it fits: reading and writing on any CPU, many at a time;
making in the few processes that hold a model, which then never wait for a disk or the network.
A row is a flat dict that Ray can carry. Once `error` holds a sentence, it is only passed on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onelook import __version__
from onelook.batch.sources import Item
from onelook.engine import OUTPUTS
from onelook.errors import OnelookError
from onelook.options import Options

Row = dict[str, Any]
ROW_FILE = "row.json"  # written last: a picture's folder that has it is complete
_OUR_FAULT = "something went wrong with this picture; the log of its worker says what"


@dataclass(frozen=True)
class Job:
    """What holds for every picture. out: absolute, and the same on every machine."""

    options: Options
    out: str
    device: str = "auto"
    vram: str = "auto"
    weights: str | None = None
    allow_urls: bool = False

    def fingerprint(self, item: Item) -> str:
        """Changes when the result would: with options, weights, version, or the local file."""
        parts: list[Any] = [__version__, asdict(self.options), self.weights, item.source]
        if not item.is_url:
            try:
                found = os.stat(item.place)
                parts += [found.st_size, found.st_mtime_ns]
            except OSError:
                parts.append("absent")
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def new_row(item: Item, job: Job) -> Row:
    """The row that enters the first stage."""
    return {**asdict(item), "fingerprint": job.fingerprint(item)}


def read_picture(row: Row, job: Job) -> Row:
    """Fetch the picture's bytes and look at them as strangers' bytes are looked at."""
    begin, content, error = time.perf_counter(), b"", ""
    try:
        content = _content_of(Item(row["source"], row["place"], row["name"]), job)
    except Exception as problem:
        error = _sentence(problem)
    seconds = time.perf_counter() - begin
    return {**row, "content": content, "error": error, "seconds_read": seconds}


class Make:
    """Holds an engine, loaded once; makes the files of one picture after another."""

    def __init__(self, job: Job):
        from onelook.engine import Engine
        from onelook.scratch import Scratch

        self._job = job
        self._engine = Engine(job.device, job.vram, job.weights)
        self._scratch = Scratch()
        if job.options.needs_surface:
            from onelook.report import Report

            self._engine.open_backend(job.options.model, Report())

    def __call__(self, row: Row) -> Row:
        content = row.pop("content")
        made: Row = {"outputs": [], "names": [], "contents": [], "metrics": "{}"}
        begin = time.perf_counter()
        if not row["error"]:
            try:
                made = self._make(content, row["name"])
            except Exception as problem:
                row["error"] = _sentence(problem)
        return {**row, **made, "seconds_made": time.perf_counter() - begin}

    def _make(self, content: bytes, name: str) -> Row:
        self._scratch.empty()
        result = self._engine.generate(content, self._job.options, self._scratch.folder, name)
        files = {output: path for output, path in result.files.items() if path is not None}
        made = {
            "outputs": list(files),
            "names": [path.name for path in files.values()],
            "contents": [path.read_bytes() for path in files.values()],
            "metrics": json.dumps(result.metrics),
        }
        self._scratch.empty()
        return made


def export(row: Row, job: Job) -> Row:
    """Write the files to their folder in OUT, all or none -> the row of the results."""
    begin, error, places = time.perf_counter(), row["error"], {}
    if not error:
        try:
            places = _write(row, Path(job.out))
        except OSError as problem:
            error = f"the files could not be written to the output folder ({problem.strerror})"
    seconds = row["seconds_read"] + row["seconds_made"] + time.perf_counter() - begin
    result = result_row(row, error, seconds, json.loads(row["metrics"]), places)
    if not error:
        _write_whole(Path(job.out, row["name"], ROW_FILE), json.dumps(result).encode())
    return result


def result_row(
    row: Row,
    error: str,
    seconds: float = 0.0,
    metrics: Row | None = None,
    places: Row | None = None,
) -> Row:
    """One row of the results; the columns are always the same."""
    metrics, places = metrics or {}, places or {}
    return {
        "source": row["source"],
        "name": row["name"],
        "status": "failed" if error else "succeeded",
        "error": error or None,
        **{output: places.get(output) for output in OUTPUTS},
        "model": metrics.get("model"),
        "seed": metrics.get("seed"),
        "faces": metrics.get("faces"),
        "seconds": round(seconds, 3),
        "fingerprint": row["fingerprint"],
    }


def _content_of(item: Item, job: Job) -> bytes:
    from onelook.foreground.decode import verify_picture

    if item.is_url:
        return _fetched(item.source) if job.allow_urls else _refuse_url()
    verify_picture(Path(item.place))
    return Path(item.place).read_bytes()


def _refuse_url() -> bytes:
    raise OnelookError("the source is a URL; allow them with --allow_urls")


def _fetched(url: str) -> bytes:
    from onelook.foreground.decode import verify_picture
    from onelook.service.fetch_url import fetch_picture

    with tempfile.TemporaryDirectory(prefix="onelook-fetch-") as folder:
        picture = Path(folder) / "picture"
        try:
            fetch_picture(url, picture)
        except OnelookError as error:
            raise OnelookError(str(error).replace("image_url", "this URL")) from error
        verify_picture(picture)
        return picture.read_bytes()


def _write(row: Row, out: Path) -> dict[str, str]:
    """-> each output's path, relative to OUT. The folder appears with all its files, or not."""
    folder = out / row["name"]
    out.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{row['name']}-", dir=out))
    try:
        for name, content in zip(row["names"], row["contents"], strict=True):
            (staging / name).write_bytes(content)
        staging.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # of earlier settings, or incomplete
        os.replace(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    names = zip(row["outputs"], row["names"], strict=True)
    return {output: f"{row['name']}/{name}" for output, name in names}


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}")
    part.write_bytes(content)
    os.replace(part, path)


def _sentence(problem: Exception) -> str:
    """For the row; what is not the picture's fault goes to the worker's log as well."""
    if isinstance(problem, OnelookError):
        return str(problem)
    traceback.print_exception(problem, file=sys.stderr)
    return _OUR_FAULT
