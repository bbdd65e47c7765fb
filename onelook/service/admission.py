"""What stands between a request and the queue: its options, its pictures, and the gate."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from onelook.errors import OptionError, PictureError
from onelook.options import Options, option_fields, parse_options
from onelook.service.fetch_url import fetch_picture
from onelook.service.form import Form
from onelook.service.gate import Gate
from onelook.service.refusals import Refusal
from onelook.service.settings import Settings


def read_options(form: Form, settings: Settings) -> Options:
    """The form's options, `auto` replaced by the operator's model. Raises Refusal."""
    values = {name: text for name, text in form.fields.items() if name != "image_url"}
    for option in option_fields():  # as the schema says: no yes, on or 1 here
        is_bool, text = isinstance(option.default, bool), values.get(option.name, "true")
        if is_bool and text.lower() not in ("true", "false"):
            raise Refusal(422, f"{option.name} must be true or false, got {text[:40]!r}")
    try:
        options = parse_options(values)
    except OptionError as error:
        raise Refusal(422, str(error)) from error
    if options.model == "auto":
        return replace(options, model=settings.model)
    if settings.weights and options.model != settings.model:
        raise Refusal(422, f"model must be auto or {settings.model} at this service.")
    return options


def refuse_wrong_sources(form: Form, settings: Settings) -> None:
    """Raises Refusal where there is not one picture, from where it may come."""
    address = form.fields.get("image_url")
    if address is not None and not settings.url_inputs:
        raise Refusal(422, "image_url is not allowed at this service; send the file image.")
    if (form.image is None) == (address is None):
        if settings.url_inputs:
            raise Refusal(422, "Send one picture: either the file image or the address image_url.")
        raise Refusal(422, "The picture is missing; send it as the file image.")


async def save_pictures(form: Form, folder: Path) -> tuple[tuple[Path, ...], str]:
    """-> the pictures' files, the main one first, and what tells this request from others.

    Raises Refusal for an address that gives no picture, OSError where they cannot be written.
    """
    pictures, digest = [], hashlib.sha256(repr(sorted(form.fields.items())).encode())
    if address := form.fields.get("image_url"):
        pictures.append(folder / "picture-from-url")
        try:
            await asyncio.to_thread(fetch_picture, address, pictures[0])
        except PictureError as error:
            raise Refusal(422, str(error)) from error
    for upload in (form.image, *form.images):
        if upload is not None:
            pictures.append(folder / f"picture-{len(pictures)}")
            await asyncio.to_thread(_copy, upload.file, pictures[-1], digest)
    return tuple(pictures), digest.hexdigest()


async def check_pictures(pictures: Sequence[Path], gate: Gate) -> None:
    """Raises Refusal for the first that cannot be used."""
    for number, picture in enumerate(pictures):
        try:
            await gate.check(picture)
        except PictureError as error:
            which = f"picture {number} of images: " if number else ""
            raise Refusal(422, f"{which}{error}") from error


def _copy(source: BinaryIO, target: Path, digest) -> None:
    source.seek(0)
    digest.update(hashlib.file_digest(source, "sha256").digest())
    source.seek(0)
    with target.open("xb") as file:
        shutil.copyfileobj(source, file)
