"""Files that are there complete or not at all, and what is said when they cannot be written."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from onelook.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its place at `path` only when all went well.

    Raises OutputError, and leaves nothing behind, when the folder cannot be written or is full.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    with told_as_output_errors():
        try:
            with open(partial, "xb") as file:
                yield file
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once; raises as `replacing`."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def told_as_output_errors() -> Iterator[None]:
    """Turn what the system says of a folder into an OutputError with a sentence for the user."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                "the disk of the output folder is full; free some space or choose another folder"
            ) from error
        raise OutputError(
            f"the output folder cannot be written ({error.strerror}); choose another folder"
        ) from error
