"""What goes wrong inside TRELLIS ends with a sentence, and the next request knows nothing of it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from helpers.pictures import mushroom_png
from helpers.trellis_checkpoint import write_dino, write_trellis

from onelook.engine import Engine
from onelook.errors import GenerationError, WeightsError
from onelook.options import Options
from onelook.report import Report

WISH = {
    "model": "trellis",
    "seed": 9,
    "sparse_structure_steps": 1,
    "slat_steps": 1,
    "decimation_target": 500,
    "texture_size": 64,
    "generate_video": False,
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return write_trellis(folder / "trellis"), write_dino(folder / "dino")


@pytest.fixture(autouse=True)
def weights(checkpoints, monkeypatch):
    monkeypatch.setenv("ONELOOK_TRELLIS_WEIGHTS", str(checkpoints[0]))
    monkeypatch.setenv("ONELOOK_DINOV2_WITH_REGISTERS_LARGE_WEIGHTS", str(checkpoints[1]))


@pytest.fixture(scope="module")
def engine():
    return Engine(device="cpu")


def make(engine, folder, name):
    return engine.generate(mushroom_png(), Options(**WISH), folder, name).files["model_file"]


@pytest.fixture(scope="module")
def asset(engine, checkpoints, tmp_path_factory):
    """The bytes of the GLB when nothing goes wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONELOOK_TRELLIS_WEIGHTS", str(checkpoints[0]))
        patch.setenv("ONELOOK_DINOV2_WITH_REGISTERS_LARGE_WEIGHTS", str(checkpoints[1]))
        return make(engine, tmp_path_factory.mktemp("right"), "asset").read_bytes()


@pytest.mark.parametrize(
    "network, key, rows, value, message",
    [
        ("structure_flow", "out_layer.bias", ..., torch.nan, "stage structure with seed 9: .* fin"),
        ("structure_decoder", "out_layer.2.bias", ..., -1e4, "structure with seed 9: no voxel is"),
        ("latent_flow", "out_layer.bias", 0, torch.inf, "stage latent with seed 9: .* not finite"),
        ("mesh", "out_layer.bias", 0, torch.nan, "stage decode_mesh with seed 9: .* not finite"),
        ("mesh", "out_layer.bias", ..., 10.0, "decode_mesh with seed 9: .* there is no surface"),
        ("gaussian", "out_layer.bias", 3, torch.nan, "decode_gaussian with seed 9: .* not finite"),
        ("gaussian", "out_layer.bias", slice(-8, None), -1e3, "gaussian with seed 9: .* transpare"),
    ],
)
def test_a_network_that_fails(engine, asset, tmp_path, network, key, rows, value, message):
    pipeline = engine.open_backend("trellis", Report()).pipeline
    tensor = dict(pipeline.networks[network].named_parameters())[key]
    right = tensor.data
    tensor.data = right.clone()
    tensor.data[rows] = value
    try:
        with pytest.raises(GenerationError, match=message) as raised:
            make(engine, tmp_path / "out", "asset")
    finally:
        tensor.data = right
    assert "try another seed" in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert make(engine, tmp_path, "asset").read_bytes() == asset


def test_too_many_voxels(engine, asset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("trellis_backend.pipeline.MOST_VOXELS", 100)
        with pytest.raises(GenerationError, match="stage structure with seed 9: 512 .* 100 may be"):
            make(engine, tmp_path / "out", "asset")
    assert not (tmp_path / "out").exists()
    assert make(engine, tmp_path, "asset").read_bytes() == asset


def test_a_pipeline_file_that_does_not_match(checkpoints, asset, tmp_path):
    """Once the file is put right, the same engine opens it."""
    folder = shutil.copytree(checkpoints[0], tmp_path / "checkpoint")
    right = (folder / "pipeline.json").read_text()
    content = json.loads(right)
    content["args"]["slat_normalization"]["mean"].pop()
    (folder / "pipeline.json").write_text(json.dumps(content))
    engine = Engine(device="cpu", weights=str(folder))
    with pytest.raises(WeightsError, match="slat_normalization gives 7, latent_flow takes 8"):
        make(engine, tmp_path / "out", "asset")
    assert not (tmp_path / "out").exists()
    (folder / "pipeline.json").write_text(right)
    assert make(engine, tmp_path, "asset").read_bytes() == asset


def test_another_process_makes_the_same_bytes(asset, tmp_path):
    """With another number of threads."""
    program = f"""
import torch; torch.set_num_threads(2)
from pathlib import Path
from onelook.engine import Engine
from onelook.options import Options
Engine(device="cpu").generate(Path("picture.png"), Options(**{WISH!r}), Path("."), "asset")
"""
    (tmp_path / "picture.png").write_bytes(mushroom_png())
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert (tmp_path / "asset.glb").read_bytes() == asset
