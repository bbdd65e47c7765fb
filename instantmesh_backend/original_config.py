"""The original's yaml files: which reconstruction model, with which numbers, from which files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from instantmesh_backend.config import ReconstructionConfig, reconstruction_config
from onelook.errors import WeightsError
from onelook.weights.locate import checkpoint_folder
from onelook.weights.manifest import manifest

REPOSITORY = "TencentARC/InstantMesh"


@dataclass(frozen=True)
class OriginalConfig:
    """unet_path and model_path: as written, see `find_file`."""

    reconstruction: ReconstructionConfig
    unet_path: str
    model_path: str


def read_original_config(path: Path) -> OriginalConfig:
    """Read a file such as instant-mesh-large.yaml.

    Raises WeightsError when it is missing, no yaml, or describes no model known here.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path.name} is no valid yaml") from error
    model = _section(path, content, "model_config")
    files = _section(path, content, "infer_config")
    try:
        config = reconstruction_config(str(model.get("target")), _mapping(model.get("params")))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path.name} describes no model known here: {error}") from error
    for name in ("unet_path", "model_path"):
        if not isinstance(files.get(name), str):
            raise WeightsError(f"{path.name} has no infer_config.{name}")
    return OriginalConfig(config, files["unet_path"], files["model_path"])


def find_file(written: str, config_folder: Path) -> Path:
    """The file that a config names: as it stands, from the config's folder, or, where neither
    exists, the weights of that name.

    Raises WeightsError saying what is missing.
    """
    for path in (Path(written).expanduser(), config_folder / written):
        if path.is_file():
            return path
    return find_weights(PurePosixPath(written).name)


def find_weights(name: str) -> Path:
    """The file of this name among the weights of InstantMesh.

    Raises WeightsError saying what is missing.
    """
    for one in manifest().checkpoints.values():
        if one.repository == REPOSITORY and [spec.path for spec in one.files] == [name]:
            return checkpoint_folder(one.name) / name
    raise WeightsError(
        f"the config names {name}, which is neither a file there nor one of {REPOSITORY}"
    )


def _section(path: Path, content: Any, name: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get(name), dict):
        raise WeightsError(
            f"{path.name} has no {name}; expected the original's model_config and infer_config"
        )
    return content[name]


def _mapping(params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        raise ValueError("model_config has no params")
    return params
