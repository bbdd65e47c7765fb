"""Open TripoSR as stabilityai/TripoSR has it: config.yaml and model.ckpt in one folder."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from onelook.errors import WeightsError
from onelook.nn.vit import ViTConfig
from onelook.weights.layouts import is_inside, read_json, require_file
from onelook.weights.opening import open_model
from triposr_backend.config import DINO, TripoSRConfig
from triposr_backend.scene_model import TripoSR

CONFIG_FILE, WEIGHTS_FILE = "config.yaml", "model.ckpt"


def open_triposr(folder: Path) -> TripoSR:
    """The network with its weights, mapped; model.ckpt is converted once.

    Raises WeightsError when a file is missing, damaged or of another system.
    """
    config = read_config(folder)
    return open_model(lambda: TripoSR(config), folder / WEIGHTS_FILE)


def read_config(folder: Path) -> TripoSRConfig:
    """What config.yaml says; the image encoder it names is DINO ViT-B/16, or one whose config.json
    lies in a folder of that name beside it. Raises WeightsError when it cannot be used."""
    import yaml

    path = folder / CONFIG_FILE
    require_file(path)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise WeightsError(
            f"{CONFIG_FILE} is no valid yaml; mend it with: onelook weights pull"
        ) from error
    try:
        return TripoSRConfig.of_yaml(content, _read_encoder(folder, content))
    except ValueError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{CONFIG_FILE} describes no TripoSR known here: {error}") from error


def _read_encoder(folder: Path, content: Any) -> ViTConfig:
    try:
        name = content["image_tokenizer"]["pretrained_model_name_or_path"]
    except (KeyError, TypeError):
        return ViTConfig()  # whatever else is wrong with the file is said where it is read
    if name == DINO:
        return ViTConfig()
    if not isinstance(name, str) or not is_inside(name) or not (folder / name).is_dir():
        raise ValueError(
            f"image_tokenizer.pretrained_model_name_or_path must be {DINO} or a folder beside"
            f" {CONFIG_FILE}, got {name!r}"
        )
    numbers = read_json(folder / name / "config.json")
    known = {one.name for one in fields(ViTConfig)}
    try:
        return ViTConfig(**{key: value for key, value in numbers.items() if key in known})
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the image encoder's config.json does not fit ({error})") from error
