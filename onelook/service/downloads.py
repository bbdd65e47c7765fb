"""Serve one file: ranges, conditions, its right type. RFC 9110, sections 13 and 14.

The file is opened before the answer begins, so that its removal meanwhile disturbs nobody.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import PurePath

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from onelook.service.jobs import OutputFile
from onelook.service.refusals import Refusal, unknown

MEDIA_TYPES = {
    ".glb": "model/gltf-binary",
    ".ply": "model/ply",
    ".stl": "model/stl",
    ".zip": "application/zip",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
_ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.IGNORECASE)
_CHUNK = 256 * 1024


def send_file(request: Request, name: str, file: OutputFile, seconds_left: float) -> Response:
    """The file, the part of it that is asked for, or 304. Raises Refusal: 404, 416."""
    etag = f'"{file.etag}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={int(seconds_left)}, immutable",
        "Content-Disposition": f'inline; filename="{name}"',
        "Content-Type": MEDIA_TYPES.get(PurePath(name).suffix, "application/octet-stream"),
    }
    if _names(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise unknown() from None
    try:
        span = _span(request, os.fstat(descriptor).st_size, etag)
    except BaseException:
        os.close(descriptor)
        raise
    first, last, size = span
    headers["Content-Length"] = str(last - first + 1)
    code = 200
    if last - first + 1 < size:
        code, headers["Content-Range"] = 206, f"bytes {first}-{last}/{size}"
    if request.method == "HEAD":
        os.close(descriptor)
        return Response(status_code=code, headers=headers)
    return StreamingResponse(_read(descriptor, first, last), code, headers)


def _span(request: Request, size: int, etag: str) -> tuple[int, int, int]:
    """-> first and last byte to send, and the file's size.

    What is no range of bytes, or several, is answered with everything, as the RFC allows.
    """
    everything = (0, size - 1, size)
    asked = _ONE_RANGE.fullmatch(request.headers.get("range", "").strip())
    if asked is None or asked.groups() == ("", ""):
        return everything
    if request.headers.get("if-range", etag) != etag:
        return everything
    first, last = asked.groups()
    if not first:
        first, last = max(0, size - int(last)), size - 1
    else:
        first, last = int(first), min(int(last or size), size - 1)
    if first > last:
        if last < size - 1:  # backwards: no valid range
            return everything
        raise Refusal(416, "The file ends before this range.", {"Content-Range": f"bytes */{size}"})
    return first, last, size


def _names(header: str, etag: str) -> bool:
    """Whether an If-None-Match names this ETag; comparison is the weak one."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return header.strip() == "*" or etag in tags


async def _read(descriptor: int, first: int, last: int) -> AsyncIterator[bytes]:
    try:
        while first <= last:
            wanted = min(_CHUNK, last - first + 1)
            chunk = await asyncio.to_thread(os.pread, descriptor, wanted, first)
            if not chunk:
                return
            first += len(chunk)
            yield chunk
    finally:
        os.close(descriptor)
