"""Opening checkpoints: mapped, strict, without initialisation; and refusing the bad ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from onelook.errors import WeightsError  # noqa: E402
from onelook.weights.layouts import folder_weights, read_model_config, read_pipeline  # noqa: E402
from onelook.weights.opening import open_model, open_pair, tensors_on_meta  # noqa: E402


class Block(torch.nn.Module):
    """A layer with a buffer that the checkpoint holds."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = torch.nn.Linear(width, width)
        self.register_buffer("table", torch.zeros(3, width))


class Net(torch.nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(width) for _ in range(2)])
        self.gamma = torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        for block in self.blocks:
            x = block.linear(x) + block.table.sum(0)
        return self.gamma * x


def seeded(width: int = 8) -> Net:
    torch.manual_seed(7)
    net = Net(width)
    for value in net.state_dict().values():
        value.normal_()
    return net.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file of weights: matrices in float16, the rest in float32."""
    tensors = {
        key: value.half() if value.ndim == 2 else value
        for key, value in seeded().state_dict().items()
    }
    path = tmp_path / "net.safetensors"
    safetensors_torch.save_file(tensors, path)
    return path


def test_opening_gives_the_stored_values_in_the_stored_types(saved):
    net = open_model(Net, saved)
    wanted = safetensors_torch.load_file(saved)
    assert net.state_dict().keys() == wanted.keys()
    for key, value in net.state_dict().items():
        assert value.dtype == wanted[key].dtype and torch.equal(value, wanted[key])
    assert not net.training and not any(value.requires_grad for value in net.parameters())
    assert tensors_on_meta(net) == []


def test_opening_draws_no_random_number(saved):
    before = torch.random.get_rng_state()
    open_model(Net, saved)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_file_is_mapped_and_not_copied(tmp_path):
    """In a process of its own: 64 MB of weights take a few MB until they are touched."""
    width = 2896
    path = tmp_path / "net.safetensors"
    state = {key: torch.zeros(value.shape) for key, value in _on_meta(width).state_dict().items()}
    safetensors_torch.save_file(state, path)
    script = f"""
import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
import torch, safetensors
from test_opening import Net, open_model
def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))
open_model(lambda: Net(8), Path({str(tmp_path / "small.safetensors")!r}))
before = private()
net = open_model(lambda: Net({width}), Path({str(path)!r}))
print(private() - before)
print({str(path)!r} in Path("/proc/self/maps").read_text())
"""
    safetensors_torch.save_file(seeded().state_dict(), tmp_path / "small.safetensors")
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs Linux's account of memory")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    grown, mapped = done.stdout.split()
    assert mapped == "True" and int(grown) < 8_000, done.stderr  # kilobytes


def _on_meta(width: int) -> Net:
    with torch.device("meta"):
        return Net(width)


def test_a_tensor_that_no_checkpoint_fills_is_named(saved):
    class Forgetful(Net):
        def __init__(self):
            super().__init__()
            self.frequencies = torch.arange(4)
            self.register_buffer("phases", torch.zeros(2), persistent=False)
            self.cache = {"angles": [torch.zeros(1)]}

    with pytest.raises(WeightsError, match="Forgetful leaves") as raised:
        open_model(Forgetful, saved)
    for name in ("frequencies", "phases", "cache['angles'][0]"):
        assert name in str(raised.value)


def test_wrong_keys_name_file_first_keys_and_cause(tmp_path):
    tensors = seeded().state_dict()
    tensors["blocks.0.linear.lora"] = tensors.pop("blocks.0.linear.bias")
    path = tmp_path / "flow_l.safetensors"
    safetensors_torch.save_file(tensors, path)
    message = (
        r"flow_l.safetensors does not fit Net: 1 missing \(first: blocks.0.linear.bias\),"
        r" 1 unexpected \(first: blocks.0.linear.lora\)\. Is this the checkpoint of another variant"
    )
    with pytest.raises(WeightsError, match=message) as raised:
        open_model(Net, path)
    assert str(tmp_path) not in str(raised.value)


def test_wrong_shapes_name_both_and_suggest_another_size(saved):
    message = r"shape \(first: gamma is \(8,\) in the file, \(9,\) in the model\).*another size"
    with pytest.raises(WeightsError, match=message):
        open_model(lambda: Net(9), saved)


def test_a_wrapper_around_all_keys_is_recognised_and_can_be_cut(tmp_path):
    tensors = {f"lrm_generator.{key}": value for key, value in seeded().state_dict().items()}
    path = tmp_path / "net.safetensors"
    safetensors_torch.save_file(tensors, path)
    with pytest.raises(WeightsError, match="All its keys begin with 'lrm_generator.'"):
        open_model(Net, path)
    net = open_model(Net, path, prefix="lrm_generator.")
    assert torch.equal(net.gamma, seeded().gamma)
    with pytest.raises(WeightsError, match="no tensors under the expected prefix"):
        open_model(Net, path, prefix="other.")


@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, -1])
def test_a_truncated_file_is_damaged(saved, keep):
    size = saved.stat().st_size
    os.truncate(saved, int(keep * size) if isinstance(keep, float) else keep % size)
    with pytest.raises(WeightsError, match="net.safetensors is damaged or not whole"):
        open_model(Net, saved)


def test_a_missing_file_and_a_folder_in_its_place(tmp_path):
    with pytest.raises(WeightsError, match="net.safetensors is missing"):
        open_model(Net, tmp_path / "net.safetensors")
    (tmp_path / "net.safetensors").mkdir()
    with pytest.raises(WeightsError, match="net.safetensors is a folder; a file is expected"):
        open_model(Net, tmp_path / "net.safetensors")


@pytest.fixture
def pair(saved) -> Path:
    """The stem of a pair of json and safetensors."""
    (saved.parent / "net.json").write_text('{"name": "Net", "args": {"width": 8}}')
    return saved.parent / "net"


CLASSES = {"Net": lambda args: Net(**args)}


def test_a_pair_opens_by_the_class_its_json_names(pair):
    x = torch.randn(2, 8)
    with torch.inference_mode():
        got, wanted = open_pair(pair, CLASSES).float()(x), seeded()(x)
    torch.testing.assert_close(got, wanted, rtol=1e-2, atol=1e-2)  # matrices in float16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"args": {}}', r'net.json must hold \{"name": class'),
        ('{"name": "Net"}', r'net.json must hold \{"name": class'),
        ("[1]", r'net.json must hold \{"name": class'),
        ("{", "net.json is no valid json"),
        ('{"name": "Other", "args": {}}', "names the class 'Other'; known here are Net"),
        ('{"name": "Net", "args": {"depth": 3}}', "args do not fit Net .*depth"),
    ],
)
def test_a_bad_json_is_named(pair, text, message):
    pair.with_name("net.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        open_pair(pair, CLASSES)


def test_an_error_inside_the_network_is_not_taken_for_a_bad_json(pair):
    def broken(args):
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        open_pair(pair, {"Net": broken})


def test_a_pipeline_finds_its_own_pairs_and_those_of_another_repository(home, pair):
    other = home / "microsoft" / "TRELLIS-image-large" / "ckpts"
    folder = home / "microsoft" / "TRELLIS.2-4B"
    models = {"flow": "ckpts/net", "decoder": "microsoft/TRELLIS-image-large/ckpts/ss_dec"}
    write_pipeline(folder, models)
    (folder / "ckpts").mkdir()
    for suffix in (".json", ".safetensors"):
        (folder / "ckpts" / f"net{suffix}").write_bytes(pair.with_name(f"net{suffix}").read_bytes())
    pipeline = read_pipeline(folder)
    assert pipeline.name == "AnyPipeline" and pipeline.args == {"seed": 1}
    assert open_pair(pipeline.stem("flow"), CLASSES).gamma.shape == (8,)
    with pytest.raises(WeightsError, match="ss_dec.json of microsoft/TRELLIS-image-large"):
        pipeline.stem("decoder")
    other.mkdir(parents=True)
    for suffix in (".json", ".safetensors"):
        (other / f"ss_dec{suffix}").write_bytes(b"{}")
    assert pipeline.stem("decoder") == other / "ss_dec"
    with pytest.raises(WeightsError, match="has no model 'encoder', only"):
        pipeline.stem("encoder")


def write_pipeline(folder: Path, models) -> None:
    folder.mkdir(parents=True)
    content = {"name": "AnyPipeline", "args": {"models": models, "seed": 1}}
    (folder / "pipeline.json").write_text(json.dumps(content))


@pytest.mark.parametrize("stem", ["../../etc/x", "/etc/x", "ckpts/../../x", 3])
def test_a_pipeline_that_points_outside_is_refused(tmp_path, stem):
    write_pipeline(tmp_path / "p", {"flow": stem})
    with pytest.raises(WeightsError, match="must name a file inside the repository"):
        read_pipeline(tmp_path / "p")


def test_the_weights_of_a_folder_are_found_best_format_first(tmp_path):
    with pytest.raises(WeightsError, match="has no weights: expected one of model.safetensors"):
        folder_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / "model.safetensors").touch()
    assert folder_weights(tmp_path).name == "model.safetensors"
    with pytest.raises(WeightsError, match="is a file; the folder of a checkpoint is expected"):
        folder_weights(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="is a folder; a file is expected"):
        read_model_config(tmp_path)
