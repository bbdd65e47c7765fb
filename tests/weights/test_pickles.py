"""Pickled checkpoints: converted once, and refused when they would run something."""

import os
import pickle

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from onelook.errors import WeightsError  # noqa: E402
from onelook.weights.opening import open_model, read_tensors  # noqa: E402
from onelook.weights.pickles import as_safetensors  # noqa: E402


def layer() -> torch.nn.Linear:
    return torch.nn.Linear(3, 2)


@pytest.fixture
def lightning(tmp_path):
    """A checkpoint as Lightning writes it: a prefix, training-only keys, numbers beside it."""
    torch.manual_seed(3)
    weights = layer().state_dict()
    state = {f"lrm_generator.{key}": value for key, value in weights.items()}
    state |= {"lpips.net.weight": torch.ones(4), "lrm_generator.source_camera": torch.ones(1)}
    path = tmp_path / "instant.ckpt"
    torch.save({"state_dict": state, "epoch": 3, "hyper": {"lr": 0.1}}, path)
    return path, weights


def open_lightning(path):
    return open_model(layer, path, prefix="lrm_generator.", ignore=("source_camera",))


def test_a_lightning_checkpoint_opens_under_its_prefix(lightning):
    path, weights = lightning
    for _ in range(2):
        for key, value in open_lightning(path).state_dict().items():
            assert torch.equal(value, weights[key])


def test_it_is_converted_once_and_again_when_it_changes(lightning):
    path, weights = lightning
    twin = as_safetensors(path)
    assert twin.name == "instant.ckpt.safetensors" and path.exists()
    made = twin.stat().st_mtime_ns
    open_lightning(path)
    assert twin.stat().st_mtime_ns == made
    os.utime(path)  # touching is no change
    assert as_safetensors(path).stat().st_mtime_ns == made
    torch.save({f"lrm_generator.{key}": value + 1 for key, value in weights.items()}, path)
    assert torch.equal(open_lightning(path).weight, weights["weight"] + 1)
    assert [one.name for one in path.parent.iterdir() if "partial" in one.name] == []


def test_a_damaged_conversion_is_made_again(lightning):
    path, weights = lightning
    os.truncate(as_safetensors(path), 100)
    assert torch.equal(open_lightning(path).weight, weights["weight"])


def test_without_a_place_to_write_the_pickle_itself_is_read(lightning, monkeypatch):
    path, weights = lightning
    monkeypatch.setattr("onelook.weights.pickles.os.access", lambda *_: False)
    assert torch.equal(open_lightning(path).weight, weights["weight"])
    assert [one.name for one in path.parent.iterdir()] == ["instant.ckpt"]


def test_tensors_that_share_memory_or_are_views_come_out_right(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "tied": base, "transposed": base.T, "row": base[1]}
    path = tmp_path / "model.bin"
    torch.save(state, path)
    for key, value in read_tensors(path).items():
        assert torch.equal(value, state[key]), key


def test_the_older_format_opens_too(tmp_path):
    path = tmp_path / "model.bin"
    torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors(path)["weight"], torch.ones(2))


class Planted:
    """Runs a program when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("writer", ["torch", "torch, older format", "pickle"])
def test_a_planted_program_is_refused_and_not_run(tmp_path, writer):
    marker, path = tmp_path / "it_ran", tmp_path / "model.ckpt"
    content = {"state_dict": {"weight": torch.ones(2)}, "hyper": Planted(marker)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content["hyper"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(WeightsError, match="model.ckpt is refused"):
        read_tensors(path)
    assert not marker.exists()
    assert [one.name for one in tmp_path.iterdir()] == ["model.ckpt"]
    with open(path, "rb") as file:  # the plant works: a reader without care would have run it
        (torch.load(path, weights_only=False) if writer != "pickle" else pickle.load(file))
    assert marker.exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_a_damaged_pickle_is_named(tmp_path, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="model.ckpt is (refused|damaged)"):
        read_tensors(path)


def test_a_truncated_pickle_is_named(lightning):
    path, _ = lightning
    os.truncate(path, path.stat().st_size - 30)
    with pytest.raises(WeightsError, match="instant.ckpt is (refused|damaged)"):
        open_lightning(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {}}])
def test_a_pickle_without_tensors_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "model.ckpt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_tensors(path)
