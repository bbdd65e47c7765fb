"""What happens to each picture: read, make, export. No stage ever raises for a picture.

They are stages so that each can run where it fits: reading and writing on any CPU, many at a time;
making in the few processes that hold a model, which then never wait for a disk or the network.
A row is a flat dict that Ray can carry. Once `error` holds a sentence, it is only passed on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
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
        from onelook.report import Report
        from onelook.scratch import Scratch

        self._job = job
        self._scratch = Scratch()
        self._obstacle = ""  # for every picture's row: weights that are missing, say
        try:
            self._engine = Engine(job.device, job.vram, job.weights)
            if job.options.needs_surface:
                self._engine.open_backend(job.options.model, Report())
        except OnelookError as error:
            self._obstacle = str(error)

    def __call__(self, row: Row) -> Row:
        content = row.pop("content")
        made: Row = {"outputs": [], "names": [], "contents": [], "metrics": "{}"}
        begin = time.perf_counter()
        row["error"] = row["error"] or self._obstacle
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
    begin, error = time.perf_counter(), row["error"]
    if not error:
        try:
            places = _write(row, Path(job.out))
            result = _result(row, "", places, begin)
            _write_whole(Path(job.out, row["name"], ROW_FILE), json.dumps(result).encode())
            return result
        except OSError as problem:
            error = f"the files could not be written to the output folder ({problem.strerror})"
    return _result(row, error, {}, begin)


def _result(row: Row, error: str, places: Row, begin: float) -> Row:
    seconds = row["seconds_read"] + row["seconds_made"] + time.perf_counter() - begin
    return result_row(row, error, seconds, json.loads(row["metrics"]), places)


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
    """-> each output's path, relative to OUT. All files or none; nothing else is touched."""
    folder = out / row["name"]
    folder.mkdir(parents=True, exist_ok=True)
    _remove_files_of(folder)
    written = []
    try:
        for name, content in zip(row["names"], row["contents"], strict=True):
            _write_whole(folder / name, content)
            written.append(folder / name)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    names = zip(row["outputs"], row["names"], strict=True)
    return {output: f"{row['name']}/{name}" for output, name in names}


def _remove_files_of(folder: Path) -> None:
    """Remove what an earlier run says it made here: other settings may make fewer files."""
    try:
        earlier = json.loads((folder / ROW_FILE).read_text("utf-8"))
        names = [Path(earlier[output]).name for output in OUTPUTS if earlier.get(output)]
    except (OSError, ValueError, TypeError, AttributeError):
        return
    for name in (ROW_FILE, *names):
        (folder / name).unlink(missing_ok=True)


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sentence(problem: Exception) -> str:
    """For the row; what is not the picture's fault goes to the worker's log as well."""
    if isinstance(problem, OnelookError):
        return str(problem)
    traceback.print_exception(problem, file=sys.stderr)
    return _OUR_FAULT
