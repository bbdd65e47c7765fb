"""Every network, built from the official numbers, has exactly the official checkpoint's keys."""

import json
import math

import pytest
import torch
from helpers.golden import GOLDEN
from helpers.manifests import assert_has_keys, load_key_list

from onelook.nn.inner_type import half_keys
from trellis2_backend.networks import NETWORKS, TORSO, exact_keys

LISTS = sorted((GOLDEN / "trellis2" / "manifest").glob("*_*.json"))
PUBLISHED = [path for path in LISTS if "published_file_bytes" in path.read_text()]
BYTES = {"F16": 2, "BF16": 2, "F32": 4}


def test_all_lists_are_here():
    assert len(LISTS) == 10 and len(PUBLISHED) == 8


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_keys_and_shapes(path):
    wanted = load_key_list(path)
    assert_has_keys(lambda: NETWORKS[wanted.class_name](wanted.config), wanted)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_what_computes_in_float32(path):
    content = json.loads(path.read_text())
    with torch.device("meta"):
        network = NETWORKS[content["class"]](content["config"])
    assert exact_keys(network) == set(content["runtime_float32"])


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_stored_types_give_the_size_of_the_file(path):
    """To the byte: header and tensors. The structure's decoder stores two types."""
    content = json.loads(path.read_text())
    with torch.device("meta"):
        halves = half_keys(NETWORKS[content["class"]](content["config"]), TORSO)
    stored = content["stored_dtype"]
    kinds = {
        key: ("F16" if key in halves else "F32") if "except" in stored else stored
        for key in content["tensors"]
    }
    header, end = {}, 0
    for key in sorted(kinds, key=lambda key: (-BYTES[kinds[key]], key)):  # as the library does
        shape, start = content["tensors"][key], end
        end += BYTES[kinds[key]] * math.prod(shape)
        header[key] = {"dtype": kinds[key], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"))
    assert 8 + -(-len(text) // 8) * 8 + end == content["published_file_bytes"]
