"""`cog.yaml` and its requirements: known keys only, and pins that satisfy pyproject.toml."""

from __future__ import annotations

import importlib.metadata
import os
import tomllib

import pytest
import yaml
from helpers.cog_schema import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

CONFIG = yaml.safe_load((ROOT / "cog.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Everything else is refused (additionalProperties: false); python_packages and pre_install still
# work but are deprecated, and concurrency needs an asynchronous method.
TOP_KEYS = {"build", "predict", "image", "model", "environment", "weights"}
BUILD_KEYS = {
    "python_version",
    "python_requirements",
    "gpu",
    "cuda",
    "cudnn",
    "system_packages",
    "run",
    "sdk_version",
}
PYTHON_VERSIONS = ("3.11", "3.12", "3.13")


def test_keys_are_known():
    assert set(CONFIG) <= TOP_KEYS
    assert set(CONFIG["build"]) <= BUILD_KEYS


def test_values_are_of_the_kind_cog_expects():
    build = CONFIG["build"]
    for key in ("python_version", "cuda", "sdk_version"):  # unquoted, 3.10 would be 3.1
        assert isinstance(build[key], str)
    assert build["python_version"] in PYTHON_VERSIONS
    assert build["gpu"] is True
    assert len(build["cuda"].split(".")) == 2
    assert all(isinstance(command, str) for command in build["run"])
    assert all("=" in line for line in CONFIG["environment"])


def test_predictor_is_named_by_a_path_from_the_root():
    file, _, name = CONFIG["predict"].partition(":")
    assert (file, name) == ("predict.py", "Predictor")
    assert (ROOT / file).is_file()


def test_sdk_and_server_are_the_versions_under_test():
    pinned = CONFIG["build"]["sdk_version"]
    assert pinned == importlib.metadata.version("cog") == importlib.metadata.version("coglet")


def test_kernel_cache_is_a_folder_the_build_makes():
    variables = dict(line.split("=", 1) for line in CONFIG["environment"])
    folder = variables["WARP_CACHE_PATH"]
    assert os.path.isabs(folder)
    assert any(folder in command for command in CONFIG["build"]["run"])


def _pins(file: str, python: str) -> dict[str, Version]:
    """Package -> its pinned version under this Python."""
    lines = (ROOT / file).read_text().splitlines()
    pins = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{line} is not pinned"
        assert requirement.name not in pins, f"{requirement.name} is pinned twice for {python}"
        pins[requirement.name] = Version(specifier.version)
    return pins


def _wanted(*extras: str) -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"]]
    lines += [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {Requirement(line).name: Requirement(line) for line in lines}


@pytest.mark.parametrize("python", PYTHON_VERSIONS)
def test_every_dependency_is_pinned_within_its_bounds(python):
    dependencies, pins = _wanted("draco"), _pins("requirements.txt", python)
    assert set(pins) == set(dependencies)
    for name, requirement in dependencies.items():
        assert requirement.specifier.contains(pins[name]), f"{requirement} is not {pins[name]}"


def test_image_has_everything_at_versions_under_test():
    """All that the models import; torch at a version whose CUDA Cog knows, and that CUDA."""
    python, build = CONFIG["build"]["python_version"], CONFIG["build"]
    pins = _pins(build["python_requirements"], python)
    dependencies = _wanted("draco", "models", "cutout")
    core = _pins("requirements.txt", python)
    assert core.items() <= pins.items()
    assert set(pins) - set(dependencies) == {"spconv-cu126", "onnxruntime"}
    for name in dependencies.keys() & pins.keys() - {"torch"}:
        assert dependencies[name].specifier.contains(pins[name]), f"{name} {pins[name]}"
    assert set(dependencies) <= set(pins)
    assert (str(pins["torch"]), build["cuda"]) == ("2.9.1", "12.8")


def test_image_keeps_checkpoints_and_the_schema():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = {line.strip("/") for line in ignored if line and not line.startswith("#")}
    build_file = CONFIG["build"]["python_requirements"]
    needed = {"weights", ".cog", "onelook", "relief_backend", "predict.py", build_file}
    assert not needed & patterns
    assert {".git", ".venv", "tests"} <= patterns
