"""The layouts in which checkpoints are published, as far as reading their small files goes.

- pipeline: `pipeline.json` names models by stem; a stem is a pair `<stem>.json`, which holds
  `{"name": class, "args": {...}}`, and `<stem>.safetensors` (TRELLIS and TRELLIS.2). A stem that is
  not in the repository is `owner/repository/stem` of another one.
- diffusers and transformers: a folder with `config.json` and one file of weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from onelook.errors import WeightsError

PIPELINE_FILE = "pipeline.json"
FOLDER_WEIGHTS = (  # best first
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline.json. models: role -> stem as written; args: everything else it holds."""

    name: str
    models: dict[str, str]
    args: dict[str, Any]
    folder: Path

    def own_stems(self) -> list[str]:
        """The stems that lie in this repository rather than in another one."""
        return [stem for stem in self.models.values() if not self._is_elsewhere(stem)]

    def stem(self, role: str) -> Path:
        """Path of the pair (without suffix) that plays `role`, found in this repository or another.

        Raises WeightsError when there is no such role or the pair is not on this machine.
        """
        if role not in self.models:
            raise WeightsError(f"{PIPELINE_FILE} has no model {role!r}, only {list(self.models)}")
        written = self.models[role]
        if not self._is_elsewhere(written):
            return self.folder / written
        from onelook.weights.locate import repository_folder

        owner, repository, rest = written.split("/", 2)
        files = [rest + ".json", rest + ".safetensors"]
        return repository_folder(f"{owner}/{repository}", files) / rest

    def _is_elsewhere(self, stem: str) -> bool:
        here = (self.folder / f"{stem}.json").is_file()
        return not here and stem.count("/") >= 2


@dataclass(frozen=True)
class ModelConfig:
    """What `<stem>.json` holds: the class's name and its arguments."""

    name: str
    args: dict[str, Any]


def read_pipeline(folder: Path, file: str = PIPELINE_FILE) -> Pipeline:
    """Read the pipeline file of a checkpoint's folder. Raises WeightsError when it is none."""
    content = read_json(folder / file)
    try:
        name, args = content["name"], dict(content["args"])
        models = dict(args.pop("models"))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{file} must hold name, args and args.models ({type(error).__name__}: {error});"
            " is this the folder of another kind of checkpoint?"
        ) from error
    for role, stem in models.items():
        if not isinstance(stem, str) or not is_inside(stem):
            raise WeightsError(f"{file}: model {role!r} must name a file inside the repository")
    return Pipeline(name, models, args, folder)


def read_model_config(path: Path) -> ModelConfig:
    """Read `<stem>.json`. Raises WeightsError when it has no name or its args are no mapping."""
    content = read_json(path)
    name = content.get("name") if isinstance(content, dict) else None
    args = content.get("args") if isinstance(content, dict) else None
    if not isinstance(name, str) or not isinstance(args, dict):
        raise WeightsError(
            f'{path.name} must hold {{"name": class, "args": {{...}}}};'
            " is it the json of another kind of checkpoint?"
        )
    return ModelConfig(name, args)


def folder_weights(folder: Path) -> Path:
    """The one file of weights in a diffusers or transformers folder.

    Raises WeightsError when `folder` is no folder or has no such file.
    """
    require_folder(folder)
    for name in FOLDER_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder.name} has no weights: expected one of {', '.join(FOLDER_WEIGHTS)}")


def read_json(path: Path) -> Any:
    """The content of a json file. Raises WeightsError when it is missing or damaged."""
    require_file(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(
            f"{path.name} is no valid json; check it with: onelook weights verify"
        ) from error


def require_file(path: Path) -> None:
    """Raise WeightsError unless `path` is a file."""
    if path.is_dir():
        raise WeightsError(f"{path.name} is a folder; a file is expected")
    if not path.is_file():
        raise WeightsError(f"{path.name} is missing; get it with: onelook weights pull")


def require_folder(path: Path) -> None:
    """Raise WeightsError unless `path` is a folder."""
    if path.is_file():
        raise WeightsError(f"{path.name} is a file; the folder of a checkpoint is expected")
    if not path.is_dir():
        raise WeightsError(f"{path.name}: there is no such folder")


def is_inside(path: str) -> bool:
    """Whether a path from a repository stays inside it."""
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path
