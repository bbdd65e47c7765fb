"""A client of onelook's REST service: one file, Python 3.9 or later, nothing to install.

    client = OnelookClient("http://127.0.0.1:8000")
    asset = client.image_to_3d("chair.png", texture_size=1024, generate_video=False)
    client.download_file(asset["model_url"], "chair.glb")

With `on_progress` the picture becomes a job that is followed by server-sent events:

    client.image_to_3d("chair.png", on_progress=lambda percent, stage: print(percent, stage))
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

OVER = ("succeeded", "failed", "canceled")


class OnelookError(Exception):
    """The service refused or failed; `code` is the HTTP status, `id` is for its operator."""

    def __init__(self, code: int, detail: str, id: str = "", retry_after: float | None = None):
        super().__init__(detail)
        self.code = code
        self.id = id
        self.retry_after = retry_after


class OnelookClient:
    """Talks to the service at `base_url`.

    timeout: seconds without a byte after which a request is given up; a whole job may run that
    long when it is waited for without progress. retries: how often a request that found the queue
    full, or the service loading, is sent again after the time the service names.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, timeout: float = 1800, retries: int = 0
    ):
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def health(self) -> dict[str, Any]:
        """How the service is: status, model_loaded, queue_length, ..."""
        return self._json("GET", "/health")

    def image_to_3d(
        self,
        image: str | Path | bytes,
        on_progress: Callable[[float, str], None] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Make an asset of a picture (a file, or its bytes) and wait for it.

        -> the service's answer: job_id, model_url, video_url, preview_image_url, ... (None where
        there is no such file). Raises OnelookError.
        """
        if on_progress is None:
            return self._post_picture(image, options, {}, idempotency_key)
        job = self.start(image, idempotency_key, **options)
        for change in self.events(job["job_id"]):
            on_progress(change["progress"], change["stage"] or change["status"])
        return self.wait(job["job_id"])

    def start(
        self, image: str | Path | bytes, idempotency_key: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Hand in a picture and come back at once with its job."""
        wish = {"Prefer": "respond-async"}
        return self._post_picture(image, options, wish, idempotency_key)

    def job(self, job_id: str) -> dict[str, Any]:
        """How the job is: status, progress, stage, message, addresses of its files."""
        return self._json("GET", f"/api/v1/jobs/{job_id}")

    def wait(self, job_id: str, poll_seconds: float = 1.0) -> dict[str, Any]:
        """Wait for a job by asking from time to time. Raises OnelookError where it failed."""
        while True:
            job = self.job(job_id)
            if job["status"] in OVER:
                return _result_of(job)
            time.sleep(poll_seconds)

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The job now and after each change, until it is over."""
        with self._open("GET", f"/api/v1/jobs/{job_id}/events") as answer:
            for line in answer:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job, also while it runs."""
        return self._json("POST", f"/api/v1/jobs/{job_id}/cancel")

    def delete(self, job_id: str) -> None:
        """Remove a job's files from the service."""
        self._open("DELETE", f"/api/v1/outputs/{job_id}").close()

    def download_file(self, url: str, target: str | Path) -> Path:
        """Save a file that an answer names; a download that breaks leaves no file."""
        target = Path(target)
        partial = target.with_name(target.name + ".part")
        try:
            with self._open("GET", url) as answer, partial.open("wb") as file:
                shutil.copyfileobj(answer, file)
                expected = answer.headers.get("Content-Length")
                if expected is not None and file.tell() != int(expected):
                    raise OnelookError(0, "the download broke off; try again")
            return partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def download_all(self, answer: dict[str, Any], folder: str | Path) -> list[Path]:
        """Save every file that an answer names under its own name."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mark = f"/outputs/{answer['job_id']}/"
        addresses = [value for value in answer.values() if isinstance(value, str) and mark in value]
        return [self.download_file(url, folder / url.rsplit("/", 1)[1]) for url in addresses]

    def _post_picture(
        self,
        image: str | Path | bytes,
        options: dict[str, Any],
        headers: dict[str, str],
        idempotency_key: str | None,
    ) -> dict[str, Any]:
        if idempotency_key:
            headers = {**headers, "Idempotency-Key": idempotency_key}
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        body, kind = _multipart(content, options)
        headers = {**headers, "Content-Type": kind}
        for attempt in range(self.retries + 1):
            try:
                return self._json("POST", "/api/v1/image-to-3d", body, headers)
            except OnelookError as error:
                if error.code not in (429, 503) or attempt == self.retries:
                    raise
                time.sleep(error.retry_after or 5)
        raise AssertionError

    def _json(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        with self._open(method, path, body, headers) as answer:
            return json.load(answer)

    def _open(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> BinaryIO:
        url = urllib.parse.urljoin(self.base_url + "/", path)
        request = urllib.request.Request(
            url, body, {**self._headers, **(headers or {})}, method=method
        )
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            raise _as_error(error) from None


def _as_error(error: urllib.error.HTTPError) -> OnelookError:
    retry_after = error.headers.get("Retry-After")
    try:
        told = json.load(error)
        detail, id = told["detail"], told["id"]
    except (ValueError, KeyError, TypeError):  # not from the service: a proxy, perhaps
        detail, id = error.reason, ""
    return OnelookError(error.code, detail, id, float(retry_after) if retry_after else None)


def _result_of(job: dict[str, Any]) -> dict[str, Any]:
    if job["status"] != "succeeded":
        raise OnelookError(0, job["message"], job["job_id"])
    return job


def _multipart(picture: bytes, options: dict[str, Any]) -> tuple[bytes, str]:
    """-> the body of a form, and its content type."""
    mark = secrets.token_hex(16)
    parts = []
    for name, value in options.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts.append(head.encode() + text.encode() + b"\r\n")
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    parts.append(head.encode() + picture + f"\r\n--{mark}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={mark}"
