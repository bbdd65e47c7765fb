"""Fetch one file: go on where an earlier try stopped, check the sum, then give it its name.

The partial file's name carries the sum of what it is to become, so a partial of other content is
never continued. Until size and sum are right and the bytes are on the disk, nobody sees the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event

from onelook.errors import WeightsError
from onelook.weights import files
from onelook.weights.hub import RemoteFile, hub_errors
from onelook.weights.locate import PARTIAL_SUFFIX

CHUNK = 1 << 20
TIMEOUT_SECONDS = 20  # without a single byte
RETRY_SECONDS = (1, 2, 4, 8)  # waits between tries that brought nothing


class Stopped(Exception):
    """Another file failed, or the user interrupted: this one stops where it is."""


def fetch(
    remote: RemoteFile,
    target: Path,
    repository: str,
    on_bytes: Callable[[int], None],
    stop: Event,
) -> str:
    """Fetch `remote` to `target` and return its SHA-256.

    on_bytes(n) is told how many bytes came (negative when they are thrown away again). What came
    stays in the partial file when an error ends this.
    Raises WeightsError on network, disk or a sum that does not match; Stopped when `stop` is set.
    """
    with hub_errors(repository):
        target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(remote, target)
    resumed = partial.stat().st_size if partial.exists() else 0
    on_bytes(resumed)
    while True:
        _fill(remote, partial, repository, on_bytes, stop)
        problem = content_problem(partial, remote)
        if problem is None:
            break
        on_bytes(-partial.stat().st_size)
        partial.unlink()
        if not resumed:
            raise WeightsError(
                f"{remote.path} of {repository} arrived damaged: {problem}. It was thrown away; run"
                " the command again, and if this repeats, do not trust the source"
            )
        resumed = 0  # what an earlier try left may have been bad: once more from the start
    sha256 = files.sha256_of(partial) if remote.sha256 is None else remote.sha256
    with hub_errors(repository):
        files.settle(partial, target)
    return sha256


def partial_path(remote: RemoteFile, target: Path) -> Path:
    """Where the unfinished file lies until it is whole."""
    tag = (remote.sha256 or remote.git_sha1 or remote.md5 or "unknown")[:12]
    return target.with_name(f"{target.name}.{tag}{PARTIAL_SUFFIX}")


def content_problem(path: Path, remote: RemoteFile) -> str | None:
    """What is wrong with a file's content; None when nothing speaks against it."""
    size = path.stat().st_size
    if remote.bytes is not None and size != remote.bytes:
        return f"{size} bytes instead of {remote.bytes}"
    checks = (
        ("SHA-256", remote.sha256, files.sha256_of),
        ("git SHA-1", remote.git_sha1, files.git_sha1_of),
        ("MD5", remote.md5, files.md5_of),
    )
    for name, wanted, digest in checks:
        if wanted is not None:
            got = digest(path)
            return None if got == wanted else f"its {name} is {got}, expected {wanted}"
    return None


def _fill(
    remote: RemoteFile,
    partial: Path,
    repository: str,
    on_bytes: Callable[[int], None],
    stop: Event,
) -> None:
    """Stream until the partial file is complete; retry while the connection is the trouble."""
    from huggingface_hub.errors import HfHubHTTPError

    transport_error = HfHubHTTPError.__bases__[0]
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        if remote.bytes is not None and before >= remote.bytes:
            return
        try:
            with hub_errors(repository):
                _stream(remote, partial, before, on_bytes, stop)
            return
        except WeightsError as error:
            cause = error.__cause__
            if not isinstance(cause, transport_error) or isinstance(cause, HfHubHTTPError):
                raise
            gained = partial.exists() and partial.stat().st_size > before
            failures = 0 if gained else failures + 1
            if failures > len(RETRY_SECONDS):
                raise
            if stop.wait(RETRY_SECONDS[max(failures - 1, 0)]):
                raise Stopped from error


def _stream(
    remote: RemoteFile,
    partial: Path,
    have: int,
    on_bytes: Callable[[int], None],
    stop: Event,
) -> None:
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    headers = {"Accept-Encoding": "identity"}  # the sizes are those of the plain bytes
    if remote.on_hub:
        headers |= build_hf_headers(library_name="onelook")  # the token, from the usual places
    if have:
        headers["Range"] = f"bytes={have}-"
    request = {"headers": headers, "timeout": TIMEOUT_SECONDS, "retry_on_exceptions": ()}
    with http_stream_backoff("GET", remote.url, **request) as response:
        if response.status_code == 416:  # nothing after what we have
            if not response.headers.get("Content-Range", "").endswith(f"/{have}"):
                on_bytes(-have)
                partial.unlink()  # the source is shorter: what we have is something else
                _stream(remote, partial, 0, on_bytes, stop)
            return
        hf_raise_for_status(response)
        if have and response.status_code != 206:  # it ignored the range and sends everything
            on_bytes(-have)
            have = 0
        with open(partial, "r+b" if have else "wb") as file:
            file.seek(have)
            for chunk in response.iter_bytes(CHUNK):
                file.write(chunk)
                on_bytes(len(chunk))
                if stop.is_set():
                    raise Stopped
