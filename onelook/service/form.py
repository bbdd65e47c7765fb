"""The form of a request for an asset: read as it streams in, never more than is allowed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from fastapi import Request, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from onelook.engine import MOST_VIEWS
from onelook.service.refusals import Refusal

UPLOAD_SECONDS = 300.0
_MOST_FIELDS = 200
_LONGEST_FIELD = 4096  # bytes
_DRAINED_BYTES = 256 * 2**20  # read and thrown away, so that a client hears why it is refused
_DRAIN_SECONDS = 10.0


@dataclass
class Form:
    """Text fields by name, and the pictures."""

    fields: dict[str, str] = field(default_factory=dict)
    image: UploadFile | None = None
    images: list[UploadFile] = field(default_factory=list)

    async def close(self) -> None:
        for upload in (self.image, *self.images):
            if upload is not None:
                await upload.close()


async def read_form(request: Request, most_bytes: int) -> Form:
    """The form of a request of at most `most_bytes`.

    Raises Refusal: 415 for another kind of body, 413 for a larger one, 408 for one that does not
    come to its end, 422 for one that is no form or has a field twice or of the wrong kind.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refusal(415, "Send the picture and its options as multipart/form-data.")
    too_large = Refusal(413, f"The request has more than {most_bytes / 2**20:g} MB; send less.")
    if _declared_length(request) > most_bytes:
        await drain(request)
        raise too_large
    stream = _limited(request, most_bytes, too_large)
    parser = MultiPartParser(
        request.headers, stream, max_files=1 + MOST_VIEWS, max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )  # fmt: skip
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            parts = await parser.parse()
    except TimeoutError:
        raise Refusal(408, "The request did not arrive in time; send it again.") from None
    except (MultiPartException, ValueError) as error:
        raise Refusal(
            422, "The request is no valid form, or has too many or too long parts."
        ) from error
    except OSError as error:
        raise as_refusal(error) from error
    return _sorted_parts(parts.multi_items())


async def drain(request: Request) -> None:
    """Let the client finish sending: most of them listen only then."""
    if request.headers.get("expect", "").lower() == "100-continue":
        return  # this one asked first
    received = 0
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for chunk in request.stream():
                received += len(chunk)
                if received > _DRAINED_BYTES:
                    return
    except (TimeoutError, RuntimeError):  # too slow, or read already
        return


def as_refusal(error: OSError) -> Refusal:
    """The disk is full, or something is wrong with it that only the operator can mend."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal(507, "The disk of the service is full; try again later.")
    return Refusal(500, "The service cannot write to its disk.")


def _declared_length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


async def _limited(request: Request, most: int, too_large: Refusal) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > most:
            await drain(request)
            raise too_large
        yield chunk


def _sorted_parts(parts: list[tuple[str, str | UploadFile]]) -> Form:
    form = Form()
    for name, value in parts:
        is_file = not isinstance(value, str)
        if name in ("image", "images") and (value.size == 0 if is_file else value == ""):
            continue  # of a form whose file field was left alone
        if name not in ("image", "images") and is_file:
            raise Refusal(422, f"{name[:80]!r} must be a text field, and a file came.")
        if name in ("image", "images") and not is_file:
            raise Refusal(422, f"{name} must be a file, got the text {value[:40]!r}.")
        if name == "images":
            form.images.append(value)
        elif name in form.fields or (name == "image" and form.image is not None):
            raise Refusal(422, f"{name[:80]!r} came twice.")
        elif is_file:
            form.image = value
        else:
            form.fields[name] = value
    return form
