"""The manifest: every checkpoint the project can use, and what each model needs.

`manifest.json` beside this file is the one copy; it travels with the installed package. What is not
known stands there as "unknown" and is None here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

from onelook.errors import WeightsError

HUB, GITHUB_RELEASE = "hub", "github-release"


@dataclass(frozen=True)
class FileSpec:
    """One file of a checkpoint, by its path in the repository.

    A path with `*` stands for every file it matches, at least one. `alternative` is the same
    content in another format, used where `path` does not exist.
    """

    path: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    alternative: str | None = None
    optional: bool = False

    def choose(self, available: Iterable[str]) -> list[str]:
        """The files of `available` that this stands for, sorted; empty where there is none."""
        available = sorted(available)
        for wanted in filter(None, (self.path, self.alternative)):
            if found := [name for name in available if fnmatchcase(name, wanted)]:
                return found
        return []


@dataclass(frozen=True)
class Checkpoint:
    """A set of files of one repository, under one licence.

    layout: pipeline (pipeline.json and pairs), pair (json and safetensors), transformers, diffusers
    or file. commercial_use, gated: yes, no, ask or unknown. source: hub or github-release.
    replacement: name of a checkpoint that is free to use instead.
    """

    name: str
    repository: str
    revision: str
    layout: str
    licence: str
    commercial_use: str
    gated: str
    purpose: str
    files: tuple[FileSpec, ...]
    source: str = HUB
    replacement: str | None = None
    note: str = ""

    @property
    def known_bytes(self) -> int:
        """Sum of the sizes that are known."""
        return sum(spec.bytes or 0 for spec in self.files)


@dataclass(frozen=True)
class Manifest:
    """checkpoints by name; models: name -> names of all the checkpoints it needs, own one first."""

    checkpoints: dict[str, Checkpoint]
    models: dict[str, tuple[str, ...]]

    def models_using(self, name: str) -> list[str]:
        """The models that need the checkpoint `name`."""
        return [model for model, needed in self.models.items() if name in needed]


@cache
def manifest() -> Manifest:
    """The manifest of this version."""
    text = resources.files("onelook.weights").joinpath("manifest.json").read_text("utf-8")
    content = json.loads(text)
    return Manifest(
        {name: _checkpoint(name, entry) for name, entry in content["checkpoints"].items()},
        {name: tuple(needed) for name, needed in content["models"].items()},
    )


def checkpoint(name: str) -> Checkpoint:
    """The checkpoint called `name`; raises WeightsError with the closest names if there is none."""
    known = manifest().checkpoints
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else "see: onelook weights list"
        raise WeightsError(f"there is no checkpoint called {name!r}; {hint}")
    return known[name]


def expand_names(names: Iterable[str]) -> list[str]:
    """Checkpoint names, each once; a model's name stands for all the checkpoints it needs."""
    models = manifest().models
    expanded = [one for name in names for one in models.get(name, (name,))]
    return [checkpoint(name).name for name in dict.fromkeys(expanded)]


def _checkpoint(name: str, entry: dict) -> Checkpoint:
    fields = {key: value for key, value in entry.items() if key != "files"}
    files = tuple(
        FileSpec(
            file["path"],
            None if file["bytes"] == "unknown" else file["bytes"],
            file.get("sha256"),
            file.get("md5"),
            file.get("or"),
            file.get("optional", False),
        )
        for file in entry["files"]
    )
    return Checkpoint(name=name, files=files, **fields)
