"""Building the networks empty must not cost more than it has to."""

import subprocess
import sys

from helpers.golden import GOLDEN

SCRIPT = """
import json, sys
from pathlib import Path
from onelook.weights.opening import build_empty
from trellis_backend.networks import NETWORKS
for path in sorted(Path(sys.argv[1]).glob("s*.json")):
    content = json.loads(path.read_text())
    build_empty(lambda: NETWORKS[content["class"]](content["config"]))
print(*sorted({"sympy", "torch._dynamo"} & sys.modules.keys()))
"""


def test_building_all_networks_does_not_import_the_compiler():
    folder = GOLDEN / "trellis" / "manifest"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
