"""The official folders and files are opened whole, and what does not fit is refused."""

import json
import shutil

import pytest
import torch
from helpers.instantmesh_checkpoint import (
    NERF,
    TEXT,
    TOKENS,
    write_reconstruction,
    write_unet,
    write_zero123plus,
)
from safetensors.torch import load_file, save_file

from instantmesh_backend.config import RECONSTRUCTION
from instantmesh_backend.opening import RAMP, open_zero123plus
from instantmesh_backend.reconstruction import open_reconstruction
from onelook.errors import WeightsError
from onelook.weights.opening import tensors_on_meta


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    return write_zero123plus(root / "zero123plus"), write_unet(root / "unet.bin")


@pytest.fixture
def folder(official, tmp_path):
    """A copy whose files may be changed."""
    return shutil.copytree(official[0], tmp_path / "zero123plus")


def change_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_nothing_is_left_without_memory(official):
    opened = open_zero123plus(*official)
    text = opened._text
    for network in (opened.unet, opened.vae, opened.vision, text):
        assert tensors_on_meta(network) == []
        assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert text.embeddings.position_ids.tolist() == [list(range(TOKENS))]
    positions = opened.vision.vision_model.embeddings.position_ids
    assert positions.tolist() == [[0, 1, 2, 3, 4]]  # class, 2 x 2 patches
    settings = opened.settings
    begin, end = TEXT["bos_token_id"], TEXT["eos_token_id"]
    assert settings.empty_prompt == (begin, end, *[0] * (TOKENS - 2))
    assert settings.ramp[:3] == (0.0, 0.01, 0.02)
    assert (settings.height, settings.width) == (960, 640)


def test_the_empty_prompt_is_what_transformers_makes_of_the_file(official):
    """Also by transformers' own way of opening, which knows both names of the keys."""
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = official[0] / "text_encoder"
    model = CLIPTextModel(CLIPTextConfig(**TEXT)).eval()
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix("text_model."): v for k, v in tensors.items()})
    opened = open_zero123plus(*official)
    with torch.inference_mode():
        wanted = model(torch.tensor([opened.settings.empty_prompt])).last_hidden_state
        torch.testing.assert_close(opened.empty_text, wanted)
    assert opened._text is None  # used once, then gone


def test_pickles_are_converted_once(official):
    open_zero123plus(*official)
    twin = official[1].with_name("unet.bin.safetensors")
    before = twin.stat().st_mtime_ns
    open_zero123plus(*official)
    assert twin.stat().st_mtime_ns == before


def test_without_a_ramp_the_published_one_is_used(official, folder):
    change_json(folder / "model_index.json", ramping_coefficients=None)
    assert open_zero123plus(folder, official[1]).settings.ramp == RAMP


def test_a_vae_with_old_names(official, folder):
    """diffusers renamed the attention of its VAEs; files of both kinds are about."""
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    renames = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, tensor in load_file(path).items():
        for new_name, old_name in renames.items():
            key = key.replace(f".{new_name}.", f".{old_name}.")
        old[key] = tensor
    save_file(old, path)
    assert sum(".query." in key for key in old) == 4
    wanted, got = (open_zero123plus(one, official[1]).vae for one in (official[0], folder))
    for key, tensor in wanted.state_dict().items():
        assert torch.equal(tensor, got.state_dict()[key]), key


def test_position_ids_in_older_files_are_ignored(official, folder):
    path = folder / "vision_encoder/model.safetensors"
    ids = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    save_file(load_file(path) | ids, path)
    assert tensors_on_meta(open_zero123plus(folder, official[1]).vision) == []


@pytest.mark.parametrize(
    "file, changes, message",
    [
        ("model_index.json", {"ramping_coefficients": [0.1] * 5}, "5 ramping_coefficients for 77"),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "epsilon"},
            "prediction_type must be v_prediction, got 'epsilon'",
        ),
        ("feature_extractor_vae/preprocessor_config.json", {"size": None}, "of another system"),
        ("vae/config.json", {"block_out_channels": [4, 4, 4, 4, 4]}, "vae/.* does not fit"),
        ("unet/config.json", {"down_block_types": ["Nothing"]}, "unet/config.json is of another"),
        ("vision_encoder/config.json", {"num_hidden_layers": 3}, "missing"),
        ("text_encoder/config.json", {"hidden_size": 32}, "of another shape"),
    ],
)
def test_what_does_not_fit_is_refused(official, folder, file, changes, message):
    change_json(folder / file, **changes)
    with pytest.raises(WeightsError, match=message):
        open_zero123plus(folder, official[1])


@pytest.mark.parametrize(
    "gone", ["vae", "tokenizer", "vision_encoder/model.safetensors", "scheduler"]
)
def test_what_is_missing_is_named(official, folder, gone):
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(WeightsError, match="onelook weights pull|no such folder|has no weights"):
        open_zero123plus(folder, official[1])


def test_the_original_unet_is_not_taken_for_instantmeshs(official, tmp_path):
    with pytest.raises(WeightsError, match="other.bin does not fit UNet2DConditionModel"):
        open_zero123plus(official[0], write_reconstruction(tmp_path / "other.bin"))
    with pytest.raises(WeightsError, match="gone.bin is missing"):
        open_zero123plus(official[0], tmp_path / "gone.bin")


def test_only_the_generator_of_a_lightning_checkpoint_counts(tmp_path):
    path = write_reconstruction(tmp_path / "nerf.ckpt", NERF)
    stored = torch.load(path, weights_only=True)["state_dict"]
    assert {"lrm_generator.source_camera", "lpips.net.weight"} < stored.keys()
    opened = open_reconstruction(path, NERF)
    assert tensors_on_meta(opened) == []
    assert {f"lrm_generator.{key}" for key in opened.state_dict()} == stored.keys() - {
        "lrm_generator.source_camera",
        "lpips.net.weight",
    }


def test_another_variant_is_refused(tmp_path):
    path = write_reconstruction(tmp_path / "nerf.ckpt", NERF)
    with pytest.raises(WeightsError, match="nerf.ckpt does not fit InstantMesh"):
        open_reconstruction(path, RECONSTRUCTION["instant-mesh-base"])


def test_pictures_sizes_may_be_plain_numbers():
    """Preprocessor files of older versions."""
    from instantmesh_backend.preparation import PixelSettings

    plain = PixelSettings.of_json(
        {
            "size": 224,
            "crop_size": 224,
            "resample": 3,
            "image_mean": 0.5,
            "image_std": [0.1, 0.2, 1],
        }
    )
    assert plain == PixelSettings(224, 224, 3, 0.5, (0.1, 0.2, 1.0))
    with pytest.raises(ValueError, match="must be a square"):
        PixelSettings.of_json({"size": 4, "crop_size": {"height": 4, "width": 5}})
