"""Every network, built from the official numbers, has exactly the official checkpoint's keys."""

import json
import math

import pytest
import torch
from helpers.golden import GOLDEN
from helpers.manifests import assert_has_keys, load_key_list

from trellis_backend.networks import NETWORKS, half_keys

LISTS = sorted((GOLDEN / "trellis" / "manifest").glob("s*.json"))


def test_all_lists_are_here():
    assert len(LISTS) == 14


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_keys_and_shapes(path):
    wanted = load_key_list(path)
    assert_has_keys(lambda: NETWORKS[wanted.class_name](wanted.config), wanted)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_stored_types_give_the_size_of_the_file(path):
    """To the byte: header and tensors."""
    wanted = load_key_list(path)
    with torch.device("meta"):
        halves = half_keys(NETWORKS[wanted.class_name](wanted.config))
    header, end = {}, 0
    for key in sorted(wanted.tensors, key=lambda key: (key in halves, key)):  # as the library does
        shape, start = list(wanted.tensors[key]), end
        end += (2 if key in halves else 4) * math.prod(shape)
        kind = "F16" if key in halves else "F32"
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"))
    size = 8 + -(-len(text) // 8) * 8 + end
    assert size == json.loads(path.read_text())["predicted_file_size"]
