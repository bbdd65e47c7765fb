"""The picture becomes the original's condition, with either layout of transformers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.golden import seed_weights
from helpers.parity import Parity
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import nn
from transformers import DINOv3ViTConfig

from onelook.errors import ForegroundError, WeightsError
from onelook.foreground.square import crop_subject, has_cutout, on_black, shrink
from trellis2_backend.conditioning import PictureEncoder, build_dino, encode_pixels, open_dino
from trellis2_backend.preparation import frame_subject


def published_tensors(case):
    """As the hub's file has them, seeded by its keys."""
    shapes = case.case.info["state_dict_keys"]
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    shell = SimpleNamespace(named_parameters=tensors.items)
    seed_weights(shell, case.case.info["weights_seed"])
    return tensors


@pytest.fixture
def folder(load_case, tmp_path):
    case = Parity(load_case("trellis2/dinov3_conditioning"))
    save_file(published_tensors(case), tmp_path / "model.safetensors")
    config = DINOv3ViTConfig(**case.config).to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@torch.inference_mode()
def test_condition_of_a_picture(load_case, folder):
    case = Parity(load_case("trellis2/dinov3_conditioning"))
    encoder = PictureEncoder(open_dino(folder))
    picture = Image.fromarray(case.case.arrays["image"])
    sides = [int(name[5:]) for name in case.case.arrays if name.startswith("cond_")]
    assert len(sides) == 2
    for side in sides:
        resized = picture.resize((side, side), Image.Resampling.LANCZOS)
        case.check(f"resized_{side}", torch.from_numpy(np.asarray(resized).copy()))
        tokens = encoder.encode([picture], side, torch.device("cpu"))
        case.check(f"cond_{side}", tokens)
    wrong = case["last_hidden_state_64_with_final_norm"]
    assert not torch.allclose(encoder.encode([picture], 64, wrong.device), wrong, atol=1e-2)


@torch.inference_mode()
def test_the_layout_of_transformers_4(load_case, folder):
    """Its layers lie at the top, under the published keys."""
    case = Parity(load_case("trellis2/dinov3_conditioning"))
    opened = open_dino(folder)
    flat = nn.Module()
    for name in ("embeddings", "rope_embeddings", "norm"):
        setattr(flat, name, getattr(opened, name))
    flat.layer = opened.model.layer
    flat.config = opened.config
    assert flat.state_dict().keys() == case.case.info["state_dict_keys"].keys()
    encoder = PictureEncoder(flat)
    assert encoder.blocks == ("layer",)
    picture = Image.fromarray(case.case.arrays["image"])
    case.check("cond_64", encoder.encode([picture], 64, torch.device("cpu")))


def test_opened_as_it_is_built(load_case, folder):
    """No table stays empty that no checkpoint holds."""
    opened, built = open_dino(folder), build_dino(open_dino(folder).config)
    wanted = dict(built.named_buffers())
    assert wanted
    for name, table in opened.named_buffers():
        assert torch.equal(table, wanted[name])
    pixels = torch.zeros(1, 3, 32, 32)
    assert encode_pixels(opened, pixels).isfinite().all()


def test_another_network_is_refused(load_case, folder):
    tensors = published_tensors(Parity(load_case("trellis2/dinov3_conditioning")))
    del tensors["layer.1.norm2.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="1 missing .first: model.layer.1.norm2.weight"):
        open_dino(folder)


@pytest.mark.parametrize("name", ["rgba_small", "rgba_edge", "rgba_large"])
def test_cut_out_is_framed(load_case, name):
    case = Parity(load_case("trellis2/preprocess_image"))
    picture = Image.fromarray(case.case.arrays[f"{name}.in"])
    assert has_cutout(picture)
    most = case.tolerance["atol"] if name == "rgba_large" else 0
    check_pixels(case, f"{name}.out", frame_subject(picture), most)


def test_picture_without_a_cut_out(load_case):
    """The recorded remover is a stand-in that makes one rectangle opaque."""
    case = Parity(load_case("trellis2/preprocess_image"))
    picture = Image.fromarray(case.case.arrays["rgba_opaque.in"])
    assert not has_cutout(picture)
    seen = shrink(picture.convert("RGB"))
    assert [seen.mode, str(seen.size)] == case.case.info["rembg_calls"][0]
    alpha = Image.new("L", seen.size, 0)
    ImageDraw.Draw(alpha).rectangle([30, 20, 89, 74], fill=255)
    seen.putalpha(alpha)
    check_pixels(case, "rgba_opaque.out", on_black(crop_subject(seen)), 0)


def test_no_subject():
    with pytest.raises(ForegroundError, match="no subject"):
        frame_subject(Image.new("RGBA", (40, 30), (200, 100, 50, 200)))


def check_pixels(case, name, picture, most):
    wanted = case.case.arrays[name].astype(int)
    assert np.abs(np.asarray(picture).astype(int) - wanted).max() <= most
