"""Where checkpoints lie on this machine.

A checkpoint is looked for in this order, and used from the first place that has all of it:
the place its environment variable or `--weights` names; the weights folder, as
`<owner>/<repository>/<file>`; the cache of huggingface_hub, in place.

Everything is read at call time and from the operator's side only: nothing of a request comes here.
Only names and sizes are looked at, so asking is cheap; `verify` reads the content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from onelook.errors import WeightsError
from onelook.weights.layouts import PIPELINE_FILE, read_pipeline
from onelook.weights.lock import LockedRepository, read_lock
from onelook.weights.manifest import Checkpoint, FileSpec, checkpoint, expand_names, manifest

_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
PARTIAL_SUFFIX = ".partial"


def weights_dir() -> Path:
    """The weights folder, which may not exist yet.

    `$ONELOOK_WEIGHTS`; else `weights/` of the checkout this runs from; else the user's cache.
    """
    if named := os.environ.get("ONELOOK_WEIGHTS"):
        return Path(named).expanduser()
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "weights" / "README.md").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout / "weights"
    return _user_cache() / "onelook" / "weights"


def missing_weights(names: Iterable[str]) -> list[str]:
    """Those of the named checkpoints (or a model's checkpoints) that are not complete here.

    What the official pipeline borrows from another repository is not missed where the one that was
    found brings its own. Raises WeightsError for a name that the manifest does not have.
    """
    found = {name: _find(checkpoint(name), None)[0] for name in expand_names(names)}
    missing = [name for name, folder in found.items() if folder is None]
    if any(checkpoint(name).layout == "pair" for name in missing) and _is_whole(found):
        return [name for name in missing if checkpoint(name).layout != "pair"]
    return missing


def _is_whole(found: dict[str, Path | None]) -> bool:
    """Whether a pipeline was found, and all models of each that was lie in its own folder."""
    pipelines = [
        read_pipeline(folder)
        for name, folder in found.items()
        if folder is not None and checkpoint(name).layout == "pipeline"
    ]
    return bool(pipelines) and all(len(one.own_stems()) == len(one.models) for one in pipelines)


def available_models() -> set[str]:
    """The models of the manifest that have all their weights on this machine."""
    needed = {name for names in manifest().models.values() for name in names}
    missing = set(missing_weights(sorted(needed)))
    return {model for model, names in manifest().models.items() if not missing & set(names)}


def checkpoint_folder(name: str, place: str | None = None) -> Path:
    """The folder that holds the files of checkpoint `name`, all of them.

    place: a folder, or owner/repository, with another checkpoint in the same layout (`--weights`);
    without it the environment is asked: `ONELOOK_<NAME>_WEIGHTS`, NAME being the checkpoint's or
    that of the model it is the first checkpoint of.
    Raises WeightsError saying what is missing and how to get it.
    """
    folder, problems = _find(checkpoint(name), place)
    if folder is None:
        raise WeightsError(_explain(checkpoint(name), place, problems))
    return folder


def repository_folder(repository: str, files: Iterable[str]) -> Path:
    """The folder of a repository that has all of `files`; for checkpoints that name another one.

    Raises WeightsError naming the checkpoint to pull, when the manifest has one.
    """
    files = list(files)
    specs = [FileSpec(path) for path in files]
    owners = [one for one in manifest().checkpoints.values() if one.repository == repository]
    places = [place for one in owners if (place := named_place(one.name)[1])]
    for folder in [
        *(folder for place in places for folder in _folders_of_place(place)),
        *_folders_of_repository(repository, None),
    ]:
        if not _problems(folder, specs, {}):
            return folder
    fitting = [one.name for one in owners if set(files) <= {spec.path for spec in one.files}]
    name = min(fitting, key=lambda one: len(checkpoint(one).files), default=repository)
    raise WeightsError(
        f"{files[0]} of {repository} is needed and is not on this machine;"
        f" get it with: onelook weights pull {name}"
    )


def variables_of(name: str) -> list[str]:
    """The environment variables that can name another place for checkpoint `name`."""
    own_models = [model for model, needed in manifest().models.items() if needed[0] == name]
    spelled = [re.sub(r"[^A-Z0-9]+", "_", word.upper()) for word in (name, *own_models)]
    return [f"ONELOOK_{word}_WEIGHTS" for word in dict.fromkeys(spelled)]


def named_place(name: str, place: str | None = None) -> tuple[str, str | None]:
    """Who names a place for checkpoint `name`, and the place; None where nobody does."""
    if place:
        return "--weights", place
    for variable in variables_of(name):
        if value := os.environ.get(variable):
            return variable, value
    return "", None


def parse_repository(place: str) -> tuple[str, str | None] | None:
    """(owner/repository, revision) of `owner/repository[@revision]`; None for any other text."""
    match = _REPOSITORY.fullmatch(place)
    return (match[1], match[2]) if match and ".." not in place else None


def expected_sizes(spec_bytes: dict[str, int], locked: LockedRepository | None) -> dict[str, int]:
    """Sizes by path: what the lock says goes before what the manifest says."""
    return spec_bytes | {path: one.bytes for path, one in (locked.files if locked else {}).items()}


def hub_snapshot(repository: str, revision: str | None) -> Path | None:
    """The folder of a repository in huggingface_hub's cache, by its documented layout."""
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or _user_cache() / "huggingface"
    root = Path(cache or Path(home) / "hub").expanduser()
    folder = root / f"models--{repository.replace('/', '--')}"
    commit = revision or "main"
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (folder / "refs" / commit).read_text("utf-8").strip()
        except OSError:
            return None
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _find(one: Checkpoint, place: str | None) -> tuple[Path | None, list[str]]:
    """The folder that has all of a checkpoint, or None and what the best candidate lacks."""
    _, named = named_place(one.name, place)
    problems: list[str] = []
    if named:
        for folder in _folders_of_place(named):
            problems = _problems(folder, *_wanted_in(folder, one))
            if not problems:
                return folder, []
        return None, problems
    locked = read_lock(weights_dir()).get(one.repository)
    known = {spec.path: spec.bytes for spec in one.files if spec.bytes}
    for folder in _folders_of_repository(one.repository, locked.revision if locked else None, one):
        found = _problems(folder, list(one.files), expected_sizes(known, locked))
        if not found:
            return folder, []
        problems = problems or found
    return None, problems


def _folders_of_place(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        return [path]
    if parsed := parse_repository(place):
        return _folders_of_repository(*parsed)
    return []


def _folders_of_repository(
    repository: str, revision: str | None, one: Checkpoint | None = None
) -> list[Path]:
    own = weights_dir() / repository
    snapshot = hub_snapshot(repository, revision or (one.revision if one else None))
    return [folder for folder in (own, snapshot) if folder is not None and folder.is_dir()]


def _wanted_in(folder: Path, one: Checkpoint) -> tuple[list[FileSpec], dict[str, int]]:
    """What a checkpoint in the same layout must have; its sizes are its own affair."""
    if one.layout != "pipeline":
        return [replace(spec, bytes=None) for spec in one.files], {}
    try:
        stems = read_pipeline(folder).own_stems()
    except WeightsError:
        return [FileSpec(PIPELINE_FILE)], {}
    pairs = [FileSpec(stem + suffix) for stem in stems for suffix in (".json", ".safetensors")]
    return [FileSpec(PIPELINE_FILE), *pairs], {}


def _problems(folder: Path, specs: list[FileSpec], sizes: dict[str, int]) -> list[str]:
    problems = []
    for spec in specs:
        found = _present(folder, spec)
        if not found and not spec.optional:
            problems.append(f"{spec.path} is missing")
        for path in found:
            size, wanted = (folder / path).stat().st_size, sizes.get(path)
            if wanted is not None and size != wanted:
                problems.append(f"{path} has {size} bytes instead of {wanted}")
    return problems


def _present(folder: Path, spec: FileSpec) -> list[str]:
    if "*" not in spec.path:
        paths = (spec.path, spec.alternative) if spec.alternative else (spec.path,)
        return [path for path in paths if (folder / path).is_file()][:1]
    found = (path.relative_to(folder).as_posix() for path in folder.glob(spec.path))
    return spec.choose(path for path in found if not path.endswith(PARTIAL_SUFFIX))


def _explain(one: Checkpoint, place: str | None, problems: list[str]) -> str:
    who, named = named_place(one.name, place)
    lacks = "; ".join(problems[:2]) + (f"; and {len(problems) - 2} more" if problems[2:] else "")
    if not named:
        state = f"incomplete ({lacks})" if problems else "not on this machine"
        return f"{one.name} is {state}; get it with: onelook weights pull {one.name}"
    if problems:
        return f"{who} names a place that does not hold {one.name} in its layout: {lacks}"
    if Path(named).expanduser().is_file():
        return f"{who} names a file; for {one.name} it must name a folder or owner/repository"
    if parse_repository(named):
        pull = f"onelook weights pull {one.name} --weights {named}"
        return f"{who} names {named}, which is not on this machine; get it with: {pull}"
    return f"{who} names a folder that does not exist; {one.name} is looked for there"


def _user_cache() -> Path:
    named = os.environ.get("XDG_CACHE_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache"
