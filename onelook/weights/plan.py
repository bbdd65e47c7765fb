"""What a pull has to do: which commit, which files, what is here already, does the rest fit.

The lock is followed where there is one, without asking the network; else the repository is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from onelook.errors import WeightsError
from onelook.weights import files, hub, lock
from onelook.weights.download import content_problem, fetch, partial_path
from onelook.weights.layouts import PIPELINE_FILE, read_pipeline
from onelook.weights.locate import hub_snapshot, parse_repository
from onelook.weights.manifest import GITHUB_RELEASE, Checkpoint, FileSpec

RESERVE_BYTES = 100 << 20  # left free on the disk


@dataclass
class Plan:
    """What one checkpoint needs: every file's description, and those still to be fetched."""

    name: str
    repository: str
    revision: str
    folder: Path
    wanted: list[hub.RemoteFile]
    sha256s: dict[str, str] = field(default_factory=dict)  # of the files that are here and right
    to_fetch: list[hub.RemoteFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_plan(
    one: Checkpoint,
    variable: str,
    named: str | None,
    followed: lock.Lock,
    known: lock.Lock,
    root: Path,
) -> Plan:
    """Resolve repository, commit and files; from the lock alone where it has them all.

    variable, named: who names another place for the checkpoint, and the place. followed: the lock
    to keep to, empty when updating. known: the lock as it is. root: the weights folder.
    Raises WeightsError as `pull`.
    """
    repository, revision, specs = one.repository, one.revision, list(one.files)
    if named:
        parsed = None if Path(named).expanduser().exists() else parse_repository(named)
        if parsed is None:
            raise WeightsError(f"{variable} names no owner/repository: there is nothing to pull")
        repository, revision = parsed[0], parsed[1] or "main"
        specs = [replace(spec, bytes=None, sha256=None, md5=None) for spec in specs]
    locked = followed.get(repository)
    plan = Plan(
        one.name, repository, locked.revision if locked else revision, root / repository, []
    )
    if locked and not (named and one.layout == "pipeline"):
        plan.wanted = _from_lock(one, repository, locked, specs)
        if plan.wanted:
            return plan
    if one.source == GITHUB_RELEASE and not named:
        offer = hub.release_offer(repository, plan.revision)
    else:
        offer = hub.hub_offer(repository, plan.revision)
    plan.revision = offer.revision
    if named and one.layout == "pipeline":
        specs = _pipeline_specs(offer, plan.folder)
    chosen = _choose(offer, specs, plan)
    if before := known.get(repository):  # one repository lies here at one commit
        stale = before.revision != offer.revision
        chosen |= {
            path: offer.files[path] for path in before.files if stale and path in offer.files
        }
    plan.wanted = list(chosen.values())
    return plan


def _from_lock(
    one: Checkpoint, repository: str, locked: lock.LockedRepository, specs: list[FileSpec]
) -> list[hub.RemoteFile]:
    """The files as the lock has them; empty where it lacks one."""
    chosen = [(spec, spec.choose(locked.files)) for spec in specs]
    if any(not found and not spec.optional for spec, found in chosen):
        return []
    if one.source == GITHUB_RELEASE and repository == one.repository:
        offered = hub.release_offer(repository, locked.revision).files
        return [
            replace(offered[path], bytes=locked.files[path].bytes, sha256=locked.files[path].sha256)
            for _, found in chosen
            for path in found
        ]
    return [
        hub.RemoteFile(
            path,
            hub.file_url(repository, locked.revision, path),
            locked.files[path].bytes,
            locked.files[path].sha256,
        )
        for _, found in chosen
        for path in found
    ]


def _choose(offer: hub.Offer, specs: list[FileSpec], plan: Plan) -> dict[str, hub.RemoteFile]:
    """The offered files that the specs stand for, checked against what the manifest knows."""
    chosen = {}
    for spec in specs:
        found = spec.choose(offer.files)
        if not found and not spec.optional:
            raise WeightsError(
                f"{offer.repository} has no {spec.path}, which {plan.name} needs; is it a"
                " checkpoint of another kind, or in another layout?"
            )
        for path in found:
            remote = offer.files[path]
            if spec.sha256 and remote.sha256 and remote.sha256 != spec.sha256:
                raise WeightsError(
                    f"{path} of {offer.repository} is not the file this version of onelook knows"
                    " (another SHA-256); update onelook, or name the repository with --weights"
                )
            if spec.bytes and path == spec.path and remote.bytes not in (None, spec.bytes):
                plan.notes.append(f"{path} has changed: {remote.bytes} bytes, not {spec.bytes}")
            chosen[path] = replace(
                remote, sha256=remote.sha256 or spec.sha256, md5=remote.md5 or spec.md5
            )
    return chosen


def _pipeline_specs(offer: hub.Offer, folder: Path) -> list[FileSpec]:
    """What another checkpoint in the pipeline layout consists of, by its own pipeline.json."""
    if PIPELINE_FILE not in offer.files:
        raise WeightsError(f"{offer.repository} has no {PIPELINE_FILE}: it is in another layout")
    remote = offer.files[PIPELINE_FILE]
    target = folder / PIPELINE_FILE
    if not target.is_file() or content_problem(target, remote):
        fetch(remote, target, offer.repository, lambda count: None, Event())
    stems = [
        stem
        for stem in read_pipeline(folder).models.values()
        if f"{stem}.json" in offer.files or stem.count("/") < 2
    ]
    pairs = [FileSpec(stem + suffix) for stem in stems for suffix in (".json", ".safetensors")]
    return [FileSpec(PIPELINE_FILE), *pairs]


def look_at_what_is_here(plan: Plan) -> None:
    """Find the files that are here and right, by their content; the rest is to be fetched."""
    snapshot = hub_snapshot(plan.repository, plan.revision)
    for folder in (plan.folder, snapshot):
        if folder is None:
            continue
        right = [
            remote
            for remote in plan.wanted
            if (folder / remote.path).is_file()
            and content_problem(folder / remote.path, remote) is None
        ]
        if folder == snapshot and len(right) < len(plan.wanted):
            break  # the cache is used whole or not at all
        plan.folder = folder
        plan.sha256s = {
            remote.path: remote.sha256 or files.sha256_of(folder / remote.path) for remote in right
        }
        if len(right) == len(plan.wanted):
            break
    plan.to_fetch = [remote for remote in plan.wanted if remote.path not in plan.sha256s]


def check_space(plans: list[Plan], root: Path) -> None:
    """Raise WeightsError unless the disk takes what the plans still have to fetch."""
    needed = {}
    for plan in plans:
        for remote in plan.to_fetch:
            partial = partial_path(remote, plan.folder / remote.path)
            here = partial.stat().st_size if partial.exists() else 0
            needed[plan.repository, remote.path] = max((remote.bytes or 0) - here, 0)
    total, free = sum(needed.values()), files.free_bytes(root)
    if total and total + RESERVE_BYTES > free:
        raise WeightsError(
            f"{', '.join(plan.name for plan in plans)}: {total / 1e9:.2f} GB are still to be"
            f" fetched and the disk of the weights folder has {free / 1e9:.2f} GB free; free some"
            " space or choose another with ONELOOK_WEIGHTS"
        )
