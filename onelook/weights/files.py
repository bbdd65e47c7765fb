"""Files that are either whole or not there: hashing, atomic writing, free space."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    return _digest(path, hashlib.sha256())


def md5_of(path: Path) -> str:
    """Hexadecimal MD5 of a file's content, for sources that publish no better sum."""
    return _digest(path, hashlib.md5(usedforsecurity=False))


def git_sha1_of(path: Path) -> str:
    """The name git gives this content: SHA-1 of `blob <size>`, a zero byte, and the content."""
    header = b"blob %d\0" % path.stat().st_size
    return _digest(path, hashlib.sha1(header, usedforsecurity=False))


def settle(temporary: Path, target: Path) -> None:
    """Give a finished temporary file its name, so that a crash leaves the old state or the new."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file whole, or leave what was there."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """Free space where `folder` is or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
