"""The networks of Zero123++, built from the official numbers, have exactly the official keys.

Those of the reconstruction models are held by `test_reconstruction_networks`.
"""

import pytest
import torch
from helpers.golden import GOLDEN
from helpers.manifests import assert_has_keys, load_key_list
from torch import nn

from instantmesh_backend.opening import RAMP, build_text, build_unet, build_vae, build_vision

FOLDER = GOLDEN / "instantmesh" / "manifest"


def build_prefixed_text(config):
    """Files hold the text encoder one level deeper than transformers does now."""
    outer = nn.Module()
    outer.text_model = build_text(config)
    return outer


BUILDERS = {
    "zero123plus_unet": build_unet,
    "zero123plus_vae": build_vae,
    "zero123plus_vision_encoder": build_vision,
    "zero123plus_text_encoder": build_prefixed_text,
}


def test_all_lists_are_here():
    lists = {path.stem for path in FOLDER.glob("*.json")}
    generators = {
        f"instant_{kind}_{size}" for kind in ("mesh", "nerf") for size in ("base", "large")
    }
    assert lists == BUILDERS.keys() | generators


@pytest.mark.parametrize("name", BUILDERS)
def test_keys_and_shapes(name):
    wanted = load_key_list(FOLDER / f"{name}.json")
    assert_has_keys(lambda: BUILDERS[name](wanted.config), wanted)


def test_what_a_config_holds_besides_is_left_out():
    config = load_key_list(FOLDER / "zero123plus_vae.json").config
    with torch.device("meta"):
        build_vae({**config, "_class_name": "AutoencoderKL", "of_a_later_version": 1})


def test_the_built_in_ramp_is_the_published_one():
    assert len(RAMP) == 77
    assert RAMP[0] == 0.00301829120144248 and RAMP[-1] == 1.1983819007873535
    assert max(RAMP[1:21]) < 0.24
