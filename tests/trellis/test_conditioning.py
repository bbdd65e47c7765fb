"""The picture becomes the original's condition, from either form of the encoder's checkpoint."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.golden import GOLDEN, seed_weights
from helpers.manifests import key_differences, load_key_list
from helpers.parity import Parity
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from onelook.errors import ForegroundError, WeightsError
from onelook.foreground.square import has_cutout, shrink
from trellis_backend.conditioning import (
    build_dino,
    config_of,
    encode_pictures,
    open_dino,
    transformers_tensors,
)
from trellis_backend.preparation import encoder_pixels, frame_subject


def original_shapes(config, names):
    """Key -> shape of the original file of this size; names: the official key list."""
    width, side = config["embed_dim"], config["img_size"] // config["patch_size"]
    official, positions = 1024, 1370

    def resize(key, shape):
        shape = [1 + side**2 if n == positions else n for n in shape]
        return tuple(n // official * width if n % official == 0 else n for n in shape)

    return {
        key: resize(key, shape)
        for key, shape in names.items()
        if not key.startswith("blocks.") or int(key.split(".")[1]) < config["depth"]
    }


def original_tensors(case, heads=None):
    names = load_key_list(GOLDEN / "trellis/manifest/dinov2_vitl14_reg4_pretrain.json").tensors
    tensors = {
        key: torch.zeros(shape) for key, shape in original_shapes(case.config, names).items()
    }
    shell = SimpleNamespace(named_parameters=tensors.items)
    seed_weights(shell, case.case.info["weights_seed"])
    return tensors


def build(case):
    tensors = original_tensors(case)
    encoder = build_dino(config_of(tensors, case.config["num_heads"]))
    encoder.load_state_dict(transformers_tensors(tensors))
    return encoder


@torch.inference_mode()
def test_condition_of_pixels(load_case):
    case = Parity(load_case("trellis/dinov2_cond"))
    encoder = build(case)
    embedded = []
    encoder.embeddings.register_forward_hook(lambda _m, _i, out: embedded.append(out))
    last = []
    encoder.encoder.layer[-1].register_forward_hook(lambda _m, _i, out: last.append(out))
    case.check("cond", encode_pictures(encoder, case["image"]))
    case.check("embedded", embedded[0])
    case.check("x_prenorm", last[0])
    case.check("cond_interp", encode_pictures(encoder, case["image_interp"]))


@torch.inference_mode()
def test_condition_of_a_picture(load_case):
    case = Parity(load_case("trellis/encode_image_pil"))
    picture = Image.fromarray(case.case.arrays["image"])
    pixels = torch.from_numpy(encoder_pixels([picture]))
    case.check("cond", encode_pictures(build(case), pixels))


def test_keys_of_the_official_size():
    wanted = load_key_list(GOLDEN / "trellis/manifest/dinov2_vitl14_reg4_pretrain.json")
    original = {key: torch.empty(s, device="meta") for key, s in wanted.tensors.items()}
    with torch.device("meta"):
        encoder = build_dino(config_of(original))
    got = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    mapped = {key: tuple(t.shape) for key, t in transformers_tensors(original).items()}
    assert not key_differences(got, mapped)
    assert encoder.config.num_attention_heads == 16
    assert sum(value.numel() for value in encoder.parameters()) == wanted.parameter_count


@torch.inference_mode()
def test_hub_folder_and_original_file_give_the_same(load_case, tmp_path):
    case = Parity(load_case("trellis/dinov2_cond"))
    tensors = original_tensors(case)
    file = tmp_path / "dinov2.pth"
    torch.save(tensors, file)
    hub = {  # as the hub's file has them
        key.replace("q_proj", "attention.query")
        .replace("k_proj", "attention.key")
        .replace("v_proj", "attention.value")
        .replace("o_proj", "output.dense"): tensor.contiguous()
        for key, tensor in transformers_tensors(tensors).items()
    }
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(hub, folder / "model.safetensors")
    config = config_of(tensors).to_dict()
    (folder / "config.json").write_text(json.dumps(config))
    one, other = (encode_pictures(open_dino(path), case["image"]) for path in (file, folder))
    assert torch.equal(one, other)


def test_another_file_is_refused():
    with pytest.raises(WeightsError, match="no 'pos_embed'"):
        config_of({"cls_token": torch.zeros(1, 1, 8)})


@pytest.mark.parametrize("name", ["centre", "border"])
def test_cut_out_is_framed(load_case, name):
    case = Parity(load_case("trellis/preprocess_image"))
    picture = Image.fromarray(case.case.arrays[f"{name}_in"])
    assert has_cutout(picture)
    check_pixels(case, f"{name}_out", frame_subject(picture))


def test_picture_without_alpha(load_case):
    case = Parity(load_case("trellis/preprocess_image"))
    picture = Image.new("RGB", (1500, 700), (90, 120, 30))
    ImageDraw.Draw(picture).rectangle([300, 100, 900, 500], fill=(220, 40, 40))
    assert not has_cutout(picture) and not has_cutout(picture.convert("RGBA"))
    seen = shrink(picture)
    assert list(seen.size) == case.case.info["remover_saw_size"]
    w, h = seen.size
    alpha = Image.new("L", (w, h), 0)
    ImageDraw.Draw(alpha).ellipse([w // 4, h // 5, w // 2, h * 4 // 5], fill=255)
    seen.putalpha(alpha)
    check_pixels(case, "rgb_out", frame_subject(seen))


def test_no_subject():
    with pytest.raises(ForegroundError, match="no subject"):
        frame_subject(Image.new("RGBA", (40, 30), (200, 100, 50, 200)))
    lone = Image.new("RGBA", (40, 30))
    lone.putpixel((7, 9), (255, 255, 255, 255))
    with pytest.raises(ForegroundError, match="single pixel"):
        frame_subject(lone)


def check_pixels(case, name, picture):
    off = np.abs(np.asarray(picture).astype(int) - case.case.arrays[name].astype(int))
    assert off.max() <= case.case.info["tolerance"]["atol"]
