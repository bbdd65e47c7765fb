"""What a source offers: the files of a hub repository at one commit, or of a GitHub release.

The hub's own client asks and authenticates; its errors are turned into sentences that say what to
do. huggingface_hub is imported inside the functions.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from onelook.errors import WeightsError
from onelook.weights.layouts import is_inside
from onelook.weights.manifest import GITHUB_RELEASE, checkpoint, manifest

GITHUB = "https://github.com"


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: path in the repository, address, and what is known of its content."""

    path: str
    url: str
    bytes: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    md5: str | None = None
    on_hub: bool = True  # else the hub's token is not sent there


@dataclass(frozen=True)
class Offer:
    """A repository at one commit (or a release at its tag) and its files by path."""

    repository: str
    revision: str
    files: dict[str, RemoteFile]


def endpoint() -> str:
    """Where the hub is: `$HF_ENDPOINT`, else the client's own default."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_offer(repository: str, revision: str) -> Offer:
    """Ask the hub what `repository` holds at `revision`, which it resolves to a commit.

    Raises WeightsError: no network, no such repository or revision, not allowed.
    """
    from huggingface_hub import HfApi

    with hub_errors(repository):
        info = HfApi(endpoint=endpoint()).model_info(
            repository, revision=revision, files_metadata=True, timeout=30
        )
    if not info.sha:
        raise WeightsError(f"the hub names no commit for {repository}; try again later")
    files = {}
    for sibling in info.siblings or []:
        path = sibling.rfilename
        if not is_inside(path):
            raise WeightsError(f"{repository} lists a file outside itself; do not use it")
        files[path] = RemoteFile(
            path,
            file_url(repository, info.sha, path),
            sibling.size,
            sibling.lfs.sha256 if sibling.lfs else None,
            None if sibling.lfs else sibling.blob_id,
        )
    return Offer(repository, info.sha, files)


def release_offer(repository: str, tag: str) -> Offer:
    """The files of a GitHub release that the manifest lists; nothing is asked before fetching."""
    files = {}
    for one in manifest().checkpoints.values():
        if (one.source, one.repository, one.revision) != (GITHUB_RELEASE, repository, tag):
            continue
        for spec in one.files:
            url = f"{GITHUB}/{repository}/releases/download/{tag}/{quote(spec.path)}"
            files[spec.path] = RemoteFile(
                spec.path, url, spec.bytes, spec.sha256, md5=spec.md5, on_hub=False
            )
    return Offer(repository, tag, files)


def file_url(repository: str, commit: str, path: str) -> str:
    """The address of a file at a commit, on the hub that is in use."""
    from huggingface_hub import constants, hf_hub_url

    url = hf_hub_url(repository, path, revision=commit)
    return endpoint() + url.removeprefix(constants.ENDPOINT)


def model_page(repository: str) -> str:
    """The hub's page of a model, where its licence is accepted."""
    return f"{endpoint()}/{repository}"


@contextmanager
def hub_errors(repository: str) -> Iterator[None]:
    """Turn the client's errors into a WeightsError that says what to do."""
    from huggingface_hub import errors

    transport_error = errors.HfHubHTTPError.__bases__[
        0
    ]  # httpx's, whichever the client is built on
    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(_gated(repository)) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{repository} does not exist or your token may not read it; see"
            f" {model_page(repository)} and log in with: hf auth login (or set HF_TOKEN)"
        ) from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise WeightsError(
            f"{repository} no longer has the revision or file that is asked for; pull with --update"
            " to follow the repository, or update onelook"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise WeightsError("HF_HUB_OFFLINE is set: unset it to pull weights") from error
    except errors.HfHubHTTPError as error:
        raise WeightsError(_refused(repository, error.response)) from error
    except transport_error as error:
        raise WeightsError(
            f"no connection while fetching {repository} ({type(error).__name__}); check the network"
            " and proxy settings and run the same command again: it goes on where it stopped"
        ) from error
    except OSError as error:
        raise WeightsError(disk_problem(error)) from error


def disk_problem(error: OSError) -> str:
    """A sentence for an error of the weights folder; it names no path."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk of the weights folder is full; free some space and run the command again"
    return (
        f"the weights folder cannot be written ({error.strerror or type(error).__name__});"
        " choose another with ONELOOK_WEIGHTS"
    )


def _gated(repository: str) -> str:
    message = (
        f"{repository} is gated: accept its licence at {model_page(repository)} with your account,"
        " then log in with: hf auth login (or set HF_TOKEN)"
    )
    for one in manifest().checkpoints.values():
        if one.repository == repository and one.replacement:
            licence = checkpoint(one.replacement).licence
            return f"{message}; free instead of it ({licence}): {one.replacement}"
    return message


def _refused(repository: str, response: Any) -> str:
    status = response.status_code
    if status in (401, 403):
        return (
            f"the hub refuses {repository} ({status}): the token lacks the right to read it; see"
            f" {model_page(repository)}"
        )
    if status == 404:
        return f"{repository} has no such file any more (404); update onelook"
    return f"the server of {repository} answers {status}; try again later"
