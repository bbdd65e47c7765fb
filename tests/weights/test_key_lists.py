"""The proof that a class has a checkpoint's keys must itself notice every difference."""

import json

import pytest
from helpers.manifests import assert_has_keys, load_key_list

torch = pytest.importorskip("torch")


def build(width=4, extra=False):
    net = torch.nn.Sequential(torch.nn.Linear(width, 3), torch.nn.BatchNorm1d(3))
    if extra:
        net.register_parameter("gamma", torch.nn.Parameter(torch.ones(1)))
    return net


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        state = build().state_dict()
        content = {
            "class": "Net",
            "config": {"width": 4},
            "tensors": {key: list(value.shape) for key, value in state.items()},
            "buffers": ["1.running_mean", "1.running_var", "1.num_batches_tracked"],
            "num_parameters": 21,
        }
        path = tmp_path / "net.json"
        path.write_text(json.dumps(content | changes))
        return load_key_list(path)

    return write


def test_an_equal_class_passes(write):
    wanted = write()
    assert wanted.config == {"width": 4} and wanted.tensors["0.weight"] == (3, 4)
    assert_has_keys(lambda: build(**wanted.config), wanted)


@pytest.mark.parametrize(
    ("changes", "network", "message"),
    [
        ({}, {"width": 5}, r"1 reshaped: 0.weight \(3, 5\), wanted \(3, 4\)"),
        ({}, {"extra": True}, r"1 unexpected, first \['gamma'\]"),
        ({"tensors": {"0.weight": [3, 4], "x": [1]}, "buffers": []}, {}, "1 missing, first"),
        ({"buffers": []}, {}, "buffers"),
        ({"num_parameters": 22}, {}, "21 parameters, not 22"),
    ],
)
def test_every_difference_is_noticed(write, changes, network, message):
    with pytest.raises(AssertionError, match=message):
        assert_has_keys(lambda: build(**network), write(**changes))


def test_a_file_that_is_no_key_list(tmp_path):
    (tmp_path / "x.json").write_text('{"content": {}}')
    with pytest.raises(ValueError, match="x.json has no tensors"):
        load_key_list(tmp_path / "x.json")
