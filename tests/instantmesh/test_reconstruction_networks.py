"""The encoder and the triplane transformer give what the original's give."""

import pytest
import torch
from helpers.golden import GOLDEN
from helpers.instantmesh_cases import tiny_config, vit_config
from helpers.manifests import assert_has_keys, load_key_list
from helpers.parity import Parity
from torch import nn

from instantmesh_backend.config import RECONSTRUCTION, TARGETS, reconstruction_config
from instantmesh_backend.encoder import ViewEncoder
from instantmesh_backend.reconstruction import build_reconstruction
from instantmesh_backend.triplane_transformer import TriplaneBlock, TriplaneTransformer
from onelook.nn.vit import ViT, ViTConfig, ViTLayer, interpolate_positions, normalise_pixels

LISTS = sorted((GOLDEN / "instantmesh" / "manifest").glob("instant_*.json"))
NAMES = {path: path.stem.replace("_", "-") for path in LISTS}


def transformer_config(numbers):
    return TARGETS["src.models.lrm.InstantNeRF"](
        transformer_layers=numbers["num_layers"],
        transformer_dim=numbers["inner_dim"],
        transformer_heads=numbers["num_heads"],
        triplane_low_res=numbers["triplane_low_res"],
        triplane_high_res=numbers["triplane_high_res"],
        triplane_dim=numbers["triplane_dim"],
        rendering_samples_per_ray=1,
        encoder_feat_dim=numbers["image_feat_dim"],
        vit=ViTConfig(hidden_size=numbers["image_feat_dim"], num_attention_heads=1),
    )


def test_all_lists_are_here():
    assert set(NAMES.values()) == set(RECONSTRUCTION)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_keys_and_shapes(path):
    wanted = load_key_list(path)
    config = RECONSTRUCTION[NAMES[path]]
    assert reconstruction_config(wanted.class_name, wanted.config) == config
    assert_has_keys(lambda: build_reconstruction(config), wanted)


def test_config_refuses_what_it_does_not_know():
    target = "src.models.lrm.InstantNeRF"
    params = {"transformer_layers": 1, "triplane_dim": 4, "rendering_samples_per_ray": 8}
    with pytest.raises(ValueError, match="target must be one of src.models"):
        reconstruction_config("src.models.other.Model", params)
    with pytest.raises(ValueError, match="unknown 'grid_res'"):
        reconstruction_config(target, params | {"grid_res": 128})
    with pytest.raises(ValueError, match="lacks triplane_dim"):
        reconstruction_config(target, {"transformer_layers": 1, "rendering_samples_per_ray": 8})
    with pytest.raises(ValueError, match="multiple of transformer_heads"):
        reconstruction_config(target, params | {"transformer_heads": 7})


@torch.inference_mode()
def test_camera_embedder(load_case):
    case = Parity(load_case("instantmesh/camera_embedder"))
    config = ViTConfig(hidden_size=case.config["hidden_size"], num_hidden_layers=0)
    encoder = case.seed(ViewEncoder(config))
    case.check("embedding", encoder.camera_embedder(case["cameras"]))


def test_positions(load_case):
    case = Parity(load_case("instantmesh/vit_pos_interp"))
    for name in ("official_224_to_320", "tiny_32_to_40", "same_size"):
        side = round((case[name].shape[1] - 1) ** 0.5)
        case.check(name, interpolate_positions(case[f"{name}_table"], (side, side)))


@torch.inference_mode()
def test_encoder_layer(load_case):
    case = Parity(load_case("instantmesh/vit_layer"))
    layer = case.seed(ViTLayer(vit_config(case.config), is_modulated=True))
    case.check("modulation", layer.adaLN_modulation(case["adaln_input"]))
    case.check("layernorm_before", layer.layernorm_before(case["x"]))
    case.check("y", layer(case["x"], case["adaln_input"]))


@torch.inference_mode()
def test_encoder_without_cameras(load_case):
    case = Parity(load_case("instantmesh/vit_tiny"))
    model = case.seed(ViT(vit_config(case.config), is_modulated=True))
    tokens = [model.embeddings(case["pixel_values"])]
    for layer in model.encoder.layer:
        tokens.append(layer(tokens[-1], case["adaln_input"]))
    for number, hidden in enumerate(tokens):
        case.check(f"hidden_{number}", hidden)
    case.check("last_hidden_state", model(case["pixel_values"], case["adaln_input"]))


@torch.inference_mode()
def test_encoder(load_case):
    case = Parity(load_case("instantmesh/dino_wrapper_tiny"))
    encoder = case.seed(ViewEncoder(vit_config(case.config["vit"])))
    images, tokens = case["images"], encoder(case["images"], case["cameras"])
    case.check("normalized_pixels_view0", normalise_pixels(images[:, 0])[0])
    views = images.shape[0] * images.shape[1]
    case.check("tokens", tokens.reshape(views, -1, tokens.shape[-1]))


@torch.inference_mode()
def test_triplane_block(load_case):
    case = Parity(load_case("instantmesh/transformer_block"))
    numbers = case.config
    block = TriplaneBlock(numbers["inner_dim"], numbers["cond_dim"], numbers["num_heads"])
    case.seed(block)
    case.check("cross_attn_out", block.cross_attn(block.norm1(case["x"]), case["cond"]))
    after_cross = case["x"] + case["cross_attn_out"]
    case.check("self_attn_out", block.self_attn(block.norm2(after_cross)))
    case.check("y", block(case["x"], case["cond"]))


@torch.inference_mode()
def test_upsampling_alone(load_case):
    case = Parity(load_case("instantmesh/triplane_upsample"))
    model = case.seed(TriplaneTransformer(transformer_config(case.config)))
    torch.testing.assert_close(model.pos_embed.data, case["pos_embed"])
    case.check("planes", model(torch.zeros(len(case["planes"]), 1, 1)))


@torch.inference_mode()
def test_triplane_transformer(load_case):
    case = Parity(load_case("instantmesh/triplane_transformer_tiny"))
    model = case.seed(TriplaneTransformer(transformer_config(case.config)))
    case.check("planes", model(case["image_feats"]))


@torch.inference_mode()
def test_images_to_planes(load_case):
    case = Parity(load_case("instantmesh/forward_planes_tiny"))
    model = case.seed(build_reconstruction(tiny_config(case)))
    images, cameras = case["images"], case["cameras"]
    case.check("planes", model.forward_planes(images, cameras))
    four = [0, 2, 4, 5]
    case.check("planes_four_views", model.forward_planes(images[:, four], cameras[:, four]))


@torch.inference_mode()
def test_objects_of_a_batch_do_not_meet(load_case):
    case = Parity(load_case("instantmesh/forward_planes_tiny"))
    model = case.seed(build_reconstruction(tiny_config(case)))
    both = torch.cat([case["images"], case["images"].flip(1)])
    cameras = case["cameras"].expand(2, -1, -1)
    together = model.forward_planes(both, cameras)
    for one in range(2):
        alone = model.forward_planes(both[one : one + 1], cameras[:1])
        torch.testing.assert_close(together[one : one + 1], alone, rtol=1e-4, atol=1e-5)


def test_wants_square_heads():
    with pytest.raises(ValueError, match="multiple of num_attention_heads, got 10 and 3"):
        ViTConfig(hidden_size=10, num_attention_heads=3)
    assert isinstance(ViT(ViTConfig(8, 1, 2, 8, 32, 16), has_pooler=True).pooler.dense, nn.Linear)
