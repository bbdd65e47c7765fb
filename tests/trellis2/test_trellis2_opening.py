"""Building the networks empty must not cost more than it has to, and leave nothing empty."""

import json
import subprocess
import sys

import pytest
from helpers.golden import GOLDEN

from onelook.weights.opening import build_empty, tensors_on_meta
from trellis2_backend.networks import NETWORKS

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
