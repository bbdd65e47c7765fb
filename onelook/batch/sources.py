"""What there is to do: the pictures of a folder, a list file or a column of a parquet file."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onelook.errors import OptionError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
COLUMNS = ("source", "path", "url", "image")  # looked for in this order
_LONGEST_NAME = 80
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Item:
    """One picture. source: as the input says it; place: an absolute path, or the URL itself.

    name: of its folder in OUT, unique in the input.
    """

    source: str
    place: str
    name: str

    @property
    def is_url(self) -> bool:
        return is_url(self.source)


def is_url(source: str) -> bool:
    """Whether it names a scheme, be it one that is allowed or not."""
    return _URL.match(source) is not None


def list_items(
    source: Path, column: str | None = None, leave_out: Path | None = None
) -> list[Item]:
    """The pictures of `source` in their order, each once.

    A folder is searched with its subfolders, without `leave_out`; the lines of a text file and the
    values of a parquet file's `column` are paths relative to that file, or URLs.
    Raises OptionError where there is nothing to do or the list cannot be read.
    """
    if source.is_dir():
        found, base = _in_folder(source, leave_out), source
        nothing = f"the input folder holds no picture ({', '.join(SUFFIXES)})"
    elif not source.exists():
        raise OptionError("the input does not exist; name a folder, a list file or a parquet file")
    else:
        read = _in_parquet if source.suffix == ".parquet" else _in_list
        found, base = read(source, column), source.parent
        nothing = "the input list is empty"
    found = list(dict.fromkeys(found))
    if not found:
        raise OptionError(nothing)
    places = [one if is_url(one) else str((base / one).resolve()) for one in found]
    return [Item(*three) for three in zip(found, places, _names(found), strict=True)]


def _in_folder(folder: Path, leave_out: Path | None) -> list[str]:
    skipped = leave_out.resolve() if leave_out else None
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if skipped is None or skipped not in path.resolve().parents:
            found.append(relative.as_posix())
    return found


def _in_list(path: Path, column: str | None) -> list[str]:
    if column:
        raise OptionError("column belongs to a parquet file, and the input is a list")
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            "the input list cannot be read; it must be UTF-8 text with one path or URL a line"
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _in_parquet(path: Path, column: str | None) -> list[str]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        known = parquet.read_schema(path).names
        name = column or next((one for one in COLUMNS if one in known), None)
        if name is None or name not in known:
            raise OptionError(
                f"the parquet file has no column {name or ' or '.join(COLUMNS)}; it has"
                f" {', '.join(known)}: choose one with --column"
            )
        values = parquet.read_table(path, columns=[name])[name].to_pylist()
    except (OSError, arrow.ArrowException) as error:
        raise OptionError("the input cannot be read as a parquet file") from error
    if not all(isinstance(value, str) for value in values if value is not None):
        raise OptionError(f"column {name} of the parquet file must hold paths or URLs as text")
    return [value for value in values if value]


def _names(sources: Iterable[str]) -> list[str]:
    """A file name for each: its stem, with a mark of the whole source where stems meet."""
    sources = list(sources)
    stems = [_stem(source) for source in sources]
    uses = Counter(stem.casefold() for stem in stems)
    return [
        stem if uses[stem.casefold()] == 1 else f"{stem}-{_mark(source)}"
        for stem, source in zip(stems, sources, strict=True)
    ]


def _stem(source: str) -> str:
    last = re.split(r"[?#]", source)[0] if is_url(source) else source
    stem = Path(last).stem if "/" in last or "." in last else last
    return re.sub(r"[^\w.-]+", "_", stem)[:_LONGEST_NAME].strip("._-") or "picture"


def _mark(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:8]
