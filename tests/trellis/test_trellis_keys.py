"""Every network, built from the official numbers, has exactly the official checkpoint's keys."""

import pytest
from helpers.golden import GOLDEN
from helpers.manifests import assert_has_keys, load_key_list

from trellis_backend.networks import NETWORKS

LISTS = sorted((GOLDEN / "trellis" / "manifest").glob("s*.json"))


def test_all_lists_are_here():
    assert len(LISTS) == 14


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_keys_and_shapes(path):
    wanted = load_key_list(path)
    assert_has_keys(lambda: NETWORKS[wanted.class_name](wanted.config), wanted)
