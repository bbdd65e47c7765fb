"""Building the networks empty must not cost more than it has to, and leave nothing empty."""

import json
import subprocess
import sys

import pytest
from helpers.fake_device import FakeDevice
from helpers.golden import GOLDEN
from helpers.trellis2_checkpoint import write_dino3
from made_checkpoints import TRELLIS2, make_trellis2

from onelook.weights.opening import build_empty, tensors_on_meta
from trellis2_backend.networks import NETWORKS
from trellis2_backend.pipeline import Trellis2Pipeline
from trellis2_backend.settings import ROLES

LISTS = sorted((GOLDEN / "trellis2" / "manifest").glob("*_*.json"))

SCRIPT = """
import json, sys
from onelook.weights.opening import build_empty
from trellis2_backend.networks import NETWORKS
for path in sys.argv[1:]:
    content = json.loads(open(path).read())
    build_empty(lambda: NETWORKS[content["class"]](content["config"]))
print(*sorted({"sympy", "torch._dynamo"} & sys.modules.keys()))
"""


def test_building_all_networks_does_not_import_the_compiler():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *LISTS], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_only_what_checkpoints_hold_is_empty(path):
    content = json.loads(path.read_text())
    network = build_empty(lambda: NETWORKS[content["class"]](content["config"]))
    assert set(tensors_on_meta(network)) == content["tensors"].keys()
    assert dict(network.named_buffers()) == {}


def test_the_official_layout_opens(tmp_path, monkeypatch):
    """All 16 GB, with holes in place of the numbers: every key and shape fits, the decoder that is
    borrowed from another repository is found, nothing is copied, and a step needs one network."""
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path))
    folder = make_trellis2(tmp_path)
    assert folder == tmp_path / TRELLIS2
    opened = Trellis2Pipeline.open(folder, write_dino3(tmp_path / "dino3", width=1024), "cpu")
    pipeline = Trellis2Pipeline(
        opened.networks, opened.encoder, opened.settings, FakeDevice(2**36), vram=6
    )
    assert pipeline.networks.keys() == set(ROLES.values())
    sizes = {name: pipeline.residency._sizes[name].whole for name in pipeline.networks}
    assert max(sizes.values()) < 2.63e9  # although parts of it become float32
    assert 15.1e9 < sum(sizes.values()) < 15.2e9
    assert all(pipeline.residency._sizes[name].least < 0.6e9 for name in sizes)
