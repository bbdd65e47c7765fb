"""TripoSR's networks give what the original's give."""

import pytest
import torch
import torch.nn.functional as F
from helpers.golden import GOLDEN
from helpers.instantmesh_cases import vit_config
from helpers.manifests import assert_has_keys, load_key_list
from helpers.parity import Parity
from helpers.triposr_cases import tiny_config

from onelook.nn.vit import Embeddings, ViTLayer, interpolate_positions
from triposr_backend.backbone import Attention, FeedForward, Transformer1D, TransformerBlock
from triposr_backend.config import BackboneConfig, DecoderConfig, TokenizerConfig, TripoSRConfig
from triposr_backend.preparation import network_pixels
from triposr_backend.scene_model import (
    Decoder,
    ImageTokenizer,
    TriplaneTokenizer,
    TriplaneUpsampler,
    TripoSR,
)


def test_keys_and_shapes():
    wanted = load_key_list(GOLDEN / "triposr" / "manifest" / "model.ckpt.json")
    config = TripoSRConfig.of_yaml(wanted.config, vit_config({}))
    assert_has_keys(lambda: TripoSR(config), wanted)


@torch.inference_mode()
def test_positions_and_embeddings(load_case):
    case = Parity(load_case("triposr/vit_pos_embed"))
    embeddings = case.seed(Embeddings(vit_config(case.config)), "model.embeddings.")
    for name, grid in (("pos_7x7", (7, 7)), ("pos_6x9", (6, 9))):
        case.check(name, interpolate_positions(embeddings.position_embeddings, grid))
    case.check("embeddings", embeddings(case["pixels"]))


@torch.inference_mode()
def test_encoder_layer(load_case):
    case = Parity(load_case("triposr/vit_layer"))
    layer = case.seed(ViTLayer(vit_config(case.config)), "model.encoder.layer.1.")
    case.check("attn", layer.attend(layer.layernorm_before(case["x"])))
    case.check("y", layer(case["x"]))


@torch.inference_mode()
def test_image_tokenizer(load_case):
    case = Parity(load_case("triposr/image_tokenizer"))
    tokenizer = case.seed(ImageTokenizer(vit_config(case.config["vit"])))
    tokens = tokenizer(case["images"][:, 0])
    case.check("tokens", tokens.transpose(1, 2)[:, None])


@torch.inference_mode()
def test_triplane_tokenizer(load_case):
    case = Parity(load_case("triposr/triplane_tokenizer"))
    tokenizer = case.seed(TriplaneTokenizer(TokenizerConfig(**case.config)))
    case.check("tokens", tokenizer(len(case["tokens"])))
    case.check("detok_out", tokenizer.detokenize(case["detok_in"]))


@torch.inference_mode()
def test_attention(load_case):
    case = Parity(load_case("triposr/attention"))
    numbers = case.config
    sizes = numbers["query_dim"], numbers["heads"], numbers["dim_head"]
    own = case.seed(Attention(*sizes, numbers["query_dim"]))
    case.check("self_out", own(case["x"], case["x"]))
    case.case.info["weights_seed"] += 1
    cross = case.seed(Attention(*sizes, numbers["cross_attention_dim"]))
    case.check("cross_out", cross(case["x"], case["context"]))


@torch.inference_mode()
def test_feed_forward(load_case):
    case = Parity(load_case("triposr/feedforward"))
    module = case.seed(FeedForward(case.config["dim"], case.config["mult"]))
    case.check("y", module(case["x"]))


@torch.inference_mode()
def test_transformer_block(load_case):
    case = Parity(load_case("triposr/transformer_block"))
    names = ("dim", "heads", "head_dim", "cross_attention_dim")
    block = case.seed(TransformerBlock(*(case.config[name] for name in names)))
    case.check("y", block(case["x"], case["context"]))


@torch.inference_mode()
def test_backbone(load_case):
    case = Parity(load_case("triposr/transformer_1d"))
    model = case.seed(Transformer1D(BackboneConfig(**case.config)))
    case.check("groupnorm", model.norm(case["x"]))
    case.check("y", model(case["x"], case["context"]))


@torch.inference_mode()
def test_upsampler(load_case):
    case = Parity(load_case("triposr/post_processor"))
    model = case.seed(TriplaneUpsampler(case.config["in_channels"], case.config["out_channels"]))
    case.check("y", model(case["x"]))


@torch.inference_mode()
def test_decoder(load_case):
    case = Parity(load_case("triposr/decoder"))
    out = case.seed(Decoder(DecoderConfig(**case.config)))(case["x"])
    case.check("density", out[:, :1])
    case.check("features", out[:, 1:])


@torch.inference_mode()
def test_picture_to_planes(load_case):
    case = Parity(load_case("triposr/tsr_full"))
    config = tiny_config(case.config)
    model = case.seed(TripoSR(config))
    images = [
        network_pixels(case.case.arrays[name], config.cond_image_size)
        for name in ("image", "image2")
    ]
    tokens = model.image_tokenizer(images[0])
    case.check("image_tokens", tokens)
    planes = model.tokenizer(1)
    case.check("tokens_in", planes)
    case.check("tokens_out", model.backbone(planes, tokens))
    case.check("scene_codes", model(images[0]))
    case.check("scene_codes2", model(images[1]))
    both = model(torch.cat(images))
    torch.testing.assert_close(both[:1], model(images[0]), **case.tolerance)


def test_config_refuses_what_it_does_not_know(load_case):
    content = load_case("triposr/tsr_full").info["config"]
    vit = vit_config(content["vit"])
    tsr = content["tsr"]
    renderer, decoder = tsr["renderer"], tsr["decoder"]
    for changes, message in (
        ({"renderer_cls": "tsr.other.Renderer"}, "renderer_cls must be tsr.models.nerf_renderer"),
        ({"cond_image_size": 60}, "cond_image_size must be a multiple of 8, got 60"),
        ({"cond_image_size": "big"}, "cond_image_size must be a whole number above 0, got 'big'"),
        ({"backbone": None}, "backbone must be a mapping"),
        ({"renderer": renderer | {"density_activation": "relu"}}, "density_activation must be exp"),
        ({"decoder": decoder | {"n_neurons": 0}}, "decoder.n_neurons must be a whole number"),
        ({"decoder": decoder | {"in_channels": 9}}, "decoder.in_channels is 9, but three times"),
        ({"decoder": decoder | {"depth": 3}}, "decoder has an unknown entry 'depth'"),
        ({"tokenizer": {"plane_size": 8}}, "tokenizer lacks an entry .*num_channels"),
    ):
        with pytest.raises(ValueError, match=message):
            TripoSRConfig.of_yaml(tsr | changes, vit)
    with pytest.raises(ValueError, match="it has no post_processor"):
        TripoSRConfig.of_yaml({k: v for k, v in tsr.items() if k != "post_processor"}, vit)


def test_picture_of_any_size_becomes_the_networks(load_case):
    case = Parity(load_case("triposr/image_processor"))
    size = case.config["size"]
    for way in ("down", "up"):
        pixels = network_pixels(case.case.arrays[f"image_{way}"], size)
        case.check(f"out_{way}", pixels.movedim(1, -1))
    square = torch.rand(1, 3, size, size)
    torch.testing.assert_close(
        F.interpolate(square, (size, size), mode="bilinear", antialias=True), square
    )
