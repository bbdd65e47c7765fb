"""Who does the work for the page: an engine in this process, or a running REST service.

Both have one method, `make`, which runs in the thread of a `Run` and may end with `Stopped` there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from onelook.demo.board import Board
from onelook.errors import GenerationError, OnelookError, OptionError
from onelook.options import Options
from onelook.report import Report

POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Made:
    """Files by the engine's names of outputs (only those that were made), and figures."""

    files: dict[str, Path]
    metrics: dict[str, Any]


class Maker(Protocol):
    def make(self, pictures: Sequence[Path], options: Options, folder: Path, board: Board) -> Made:
        """The files that `options` ask for, in `folder`; raises OnelookError with a sentence."""
        ...


class LocalMaker:
    """An engine in this process; one run at a time, cut-outs beside it."""

    def __init__(self, device: str = "auto", vram: str = "auto", weights: str | None = None):
        from onelook.engine import Engine

        self._engine = Engine(device, vram, weights)
        self._turn = threading.Lock()  # a stopped run may need a moment to end

    def warm_up(self) -> None:
        """Compile the kernels and load the default model, so that no visitor waits for it."""
        self._engine.warm_up()

    def make(self, pictures: Sequence[Path], options: Options, folder: Path, board: Board) -> Made:
        report = Report(lambda step, f: board.advance(step, report.overall(f)), board.note)
        picture, *views = pictures
        turn = self._turn if options.needs_surface else contextlib.nullcontext()
        with turn:
            result = self._engine.generate(picture, options, folder, "output", report, views)
        files = {name: path for name, path in result.files.items() if path is not None}
        return Made(files, result.metrics)


class ServiceMaker:
    """A client of `onelook serve`; its jobs are canceled when the run is stopped."""

    def __init__(self, url: str, api_key: str | None = None):
        """Raises OptionError when `url` is not the address of a service."""
        import httpx

        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise OptionError("service must be an address that starts with http:// or https://")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._root = url.rstrip("/") + "/"
        self._client = httpx.Client(headers=headers, timeout=60, follow_redirects=False)

    def make(self, pictures: Sequence[Path], options: Options, folder: Path, board: Board) -> Made:
        fields = {name: str(value).lower() for name, value in asdict(options).items()}
        names = ["image", *["images"] * (len(pictures) - 1)]
        job = self._ask(
            "POST",
            "api/v1/image-to-3d",
            data=fields,
            files=[
                (name, (picture.name, picture.read_bytes()))
                for name, picture in zip(names, pictures, strict=True)
            ],
            headers={"Prefer": "respond-async"},
        )
        try:
            job = self._follow(job, board)
            return Made(self._fetch(job, folder), job["metrics"])
        except BaseException:
            with contextlib.suppress(OnelookError):
                self._ask("POST", job["cancel_url"])
            raise
        finally:
            with contextlib.suppress(OnelookError):
                self._ask("DELETE", f"api/v1/outputs/{job['job_id']}")

    def _follow(self, job: dict[str, Any], board: Board) -> dict[str, Any]:
        """The job when it has succeeded. Raises GenerationError with its message otherwise."""
        told = 0
        while True:
            if job["status"] == "queued":
                board.advance("wait for the service", 0.0)
            else:
                board.advance(job["stage"] or "", job["progress"] / 100)
            for sentence in job["notes"][told:]:
                board.note(sentence)
            told = len(job["notes"])
            if job["status"] == "succeeded":
                return job
            if job["status"] in ("failed", "canceled"):
                raise GenerationError(job["message"])
            time.sleep(POLL_SECONDS)
            job = self._ask("GET", job["status_url"])

    def _fetch(self, job: dict[str, Any], folder: Path) -> dict[str, Path]:
        from onelook.engine import OUTPUTS

        files = {}
        for output in OUTPUTS:
            url = job.get(f"{output.removesuffix('_file')}_url")
            if url:
                files[output] = folder / Path(urlsplit(url).path).name
                with self._client.stream("GET", self._address(url)) as answer:
                    answer.raise_for_status()
                    with files[output].open("wb") as file:
                        for piece in answer.iter_bytes():
                            file.write(piece)
        return files

    def _ask(self, method: str, place: str, **request: Any) -> dict[str, Any]:
        """JSON of an answer. Raises GenerationError with the service's sentence."""
        import httpx

        try:
            answer = self._client.request(method, self._address(place), **request)
            content = answer.json() if answer.content else {}
        except (httpx.HTTPError, ValueError) as error:
            raise GenerationError(
                "the service behind this page does not answer; try again in a minute"
            ) from error
        if answer.is_error:
            detail = content.get("detail") if isinstance(content, dict) else None
            raise GenerationError(detail if isinstance(detail, str) else "the service refused it")
        return content

    def _address(self, place: str) -> str:
        return urljoin(self._root, place)
