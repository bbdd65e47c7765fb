"""Where checkpoints are looked for; nothing is fetched here."""

import json

import pytest

from onelook.errors import WeightsError
from onelook.weights.locate import (
    available_models,
    checkpoint_folder,
    missing_weights,
    variables_of,
    weights_dir,
)
from onelook.weights.manifest import checkpoint, manifest


def put(folder, *paths, size=2):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"{}".ljust(size))


def test_nothing_is_here_in_an_empty_place(home):
    assert available_models() == set()
    assert set(missing_weights(manifest().checkpoints)) == set(manifest().checkpoints)
    assert not home.exists()  # asking makes no folder


def test_a_model_is_available_when_its_last_file_is(home):
    for name in manifest().models["dreamgaussian"]:
        one = checkpoint(name)
        paths = [spec.path.replace("*", "one.json") for spec in one.files if not spec.optional]
        put(home / one.repository, *paths[:-1])
        assert available_models() == set()
        put(home / one.repository, paths[-1])
    assert available_models() == {"dreamgaussian"}


def test_a_file_of_the_wrong_size_does_not_count(home):
    one = checkpoint("triposr")
    put(home / one.repository, "config.yaml", "model.ckpt")
    with pytest.raises(WeightsError, match=r"model.ckpt has 2 bytes instead of 1677246742"):
        checkpoint_folder("triposr")
    with open(home / one.repository / "model.ckpt", "r+b") as file:
        file.truncate(1677246742)  # sparse: takes no space
    assert checkpoint_folder("triposr") == home / one.repository


def test_what_is_missing_names_the_command(home):
    with pytest.raises(
        WeightsError, match="not on this machine; get it with: onelook weights pull"
    ):
        checkpoint_folder("dinov3-vitl16")
    with pytest.raises(WeightsError, match="there is no checkpoint called 'dino'"):
        missing_weights(["dino"])


def test_the_environment_names_another_folder_by_model_or_by_checkpoint(tmp_path, monkeypatch):
    assert variables_of("trellis2-4b") == [
        "ONELOOK_TRELLIS2_4B_WEIGHTS",
        "ONELOOK_TRELLIS2_WEIGHTS",
    ]
    assert variables_of("triposr") == ["ONELOOK_TRIPOSR_WEIGHTS"]
    folder = tmp_path / "mine"
    put(folder, "config.yaml", "model.ckpt")
    monkeypatch.setenv("ONELOOK_TRIPOSR_WEIGHTS", str(folder))  # its sizes are its own affair
    assert checkpoint_folder("triposr") == folder
    assert available_models() == {"triposr"}
    assert checkpoint_folder("triposr", str(folder)) == folder
    (folder / "model.ckpt").unlink()
    with pytest.raises(WeightsError, match="ONELOOK_TRIPOSR_WEIGHTS names a place .*model.ckpt is"):
        checkpoint_folder("triposr")


def test_a_named_pipeline_needs_what_its_own_file_lists(tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    folder.mkdir()
    models = {
        "flow": "ckpts/a",
        "decoder": "b",
        "borrowed": "microsoft/TRELLIS-image-large/ckpts/c",
    }
    (folder / "pipeline.json").write_text(json.dumps({"name": "P", "args": {"models": models}}))
    put(folder, "ckpts/a.json", "ckpts/a.safetensors", "b.json")
    with pytest.raises(WeightsError, match="--weights names a place .*: b.safetensors is missing$"):
        checkpoint_folder("trellis2-4b", str(folder))
    put(folder, "b.safetensors")
    assert checkpoint_folder("trellis2-4b", str(folder)) == folder


def test_a_pipeline_that_borrows_nothing_needs_nothing_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("ONELOOK_TRELLIS2_WEIGHTS", str(tmp_path / "own"))
    (tmp_path / "own" / "ckpts").mkdir(parents=True)
    for ending in ("json", "safetensors"):
        (tmp_path / "own" / "ckpts" / f"decoder.{ending}").touch()
    for stem, missing in (
        ("ckpts/decoder", ["dinov3-vitl16"]),
        ("someone/else/ckpts/decoder", ["trellis-structure-decoder", "dinov3-vitl16"]),
    ):
        models = {"sparse_structure_decoder": stem}
        content = {"name": "Trellis2ImageTo3DPipeline", "args": {"models": models}}
        (tmp_path / "own" / "pipeline.json").write_text(json.dumps(content))
        assert missing_weights(["trellis2"]) == missing


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("model.ckpt", "names a file; for triposr it must name a folder or owner/repository"),
        ("/no/such/place", "names a folder that does not exist"),
        ("owner/repo", "owner/repo, which is not on this machine; get it with: .* --weights owner"),
        ("../repo", "names a folder that does not exist"),
    ],
)
def test_a_named_place_that_is_not_there(tmp_path, monkeypatch, place, message):
    put(tmp_path, "model.ckpt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=message):
        checkpoint_folder("triposr", place)


def test_the_weights_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "w"))
    assert weights_dir() == tmp_path / "w"
    monkeypatch.delenv("ONELOOK_WEIGHTS")
    checkout = weights_dir()
    assert checkout.name == "weights" and (checkout / "README.md").is_file()
    monkeypatch.setattr("onelook.weights.locate.__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # an installed package
    assert weights_dir() == tmp_path / "cache" / "onelook" / "weights"
