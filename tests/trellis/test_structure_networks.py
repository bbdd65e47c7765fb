"""The networks of the sparse structure give what the original's give."""

import torch
from helpers.parity import Parity

from onelook.nn.patches import patchify, unpatchify
from onelook.nn.structure_vae import (
    DownsampleBlock3d,
    ResBlock3d,
    UpsampleBlock3d,
    occupied,
)
from trellis_backend.networks import NETWORKS


def build(case):
    return case.seed(NETWORKS[case.case.info["class"]](case.config))


def test_patches_and_pixel_shuffle(load_case):
    case = Parity(load_case("trellis/spatial_ops"))
    case.check("patchified", patchify(case["x"], case.config["patch_size"]))
    case.check("unpatchified", unpatchify(case["patchified"], case.config["patch_size"]))
    case.check("shuffled", unpatchify(case["y"], case.config["scale_factor"]))


@torch.inference_mode()
def test_flow_model(load_case):
    case = Parity(load_case("trellis/ss_flow_tiny"))
    model = build(case)
    case.check("pos_emb", model.pos_emb)
    case.check("t_emb", model.t_embedder(case["t"]))
    seen = {"after_input_layer": record(model.input_layer)}
    seen |= {f"after_block{i}": record(block) for i, block in enumerate(model.blocks)}
    case.check("out", model(case["x"], case["t"], case["cond"]))
    for name, outputs in seen.items():
        case.check(name, outputs[0])


@torch.inference_mode()
def test_flow_model_with_patches_and_cross_norm(load_case):
    case = Parity(load_case("trellis/ss_flow_tiny_patch2"))
    case.check("out", build(case)(case["x"], case["t"], case["cond"]))


@torch.inference_mode()
def test_convolution_blocks(load_case):
    case = Parity(load_case("trellis/ss_conv_blocks"))
    for name, kind, x in [
        ("res_same", ResBlock3d, "x"),
        ("res_change", ResBlock3d, "x"),
        ("up", UpsampleBlock3d, "x"),
        ("down", DownsampleBlock3d, "x2"),
    ]:
        case.check(name, case.seed(kind(*case.config[name]))(case[x]))


@torch.inference_mode()
def test_decoder(load_case):
    case = Parity(load_case("trellis/ss_decoder_tiny"))
    logits = build(case)(case["x"])
    case.check("out", logits)
    case.check("coords", occupied(logits))


@torch.inference_mode()
def test_encoder(load_case):
    case = Parity(load_case("trellis/ss_encoder_tiny"))
    mean, logvar = build(case)(case["x"].float())
    case.check("z", mean)
    case.check("logvar", logvar)


def record(module):
    """What the module gives from now on; a block gives a list of branches, of which the first."""
    seen = []
    module.register_forward_hook(
        lambda _module, _inputs, out: seen.append(out[0] if isinstance(out, list) else out)
    )
    return seen
