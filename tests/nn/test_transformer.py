"""Transformer blocks, dense and sparse, give what the original's give; so do their parts."""

import pytest
import torch
from helpers.parity import Parity

from onelook.nn.condition import Condition
from onelook.nn.layout import Dense
from onelook.nn.norms import layer_norm
from onelook.nn.transformer import (
    EPS,
    CrossAttention,
    ModulatedCrossBlock,
    SelfAttention,
    TransformerBlock,
)
from onelook.nn.voxels import Voxels

QK_NORM = {"qk_rms_norm": "qk_norm", "qk_rms_norm_cross": "qk_norm_cross"}


def build(config, **options):
    options = {QK_NORM.get(name, name): value for name, value in options.items()}
    return ModulatedCrossBlock(
        config["channels"], config["ctx_channels"], config["num_heads"], **options
    )


@torch.inference_mode()
@pytest.mark.parametrize("variant", ["qknorm_self", "qknorm_both", "plain"])
def test_dense_cross_block(load_case, variant):
    case = Parity(load_case("trellis/mod_cross_block"))
    block = case.seed(build(case.config, **case.config["variants"][variant]))
    condition = Condition(case["context"])
    (out,) = block([case["x"]], case["mod"], [condition], Dense())
    case.check(f"out_{variant}", out)


@torch.inference_mode()
def test_parts_of_the_dense_cross_block(load_case):
    case = Parity(load_case("trellis/mod_cross_block"))
    block = case.seed(build(case.config, **case.config["variants"]["qknorm_self"]))
    x, normed = case["x"], layer_norm(case["x"], EPS)
    case.check("norm1", normed)
    case.check("modulation", torch.cat(block.six_vectors(case["mod"], Dense()), dim=1))
    case.check("self_attn", block.self_attn(normed, Dense().attend))
    case.check("cross_attn", block.cross(x, Condition(case["context"]), Dense()))
    case.check("mlp", block.mlp(x))


@torch.inference_mode()
def test_block_with_shared_modulation(load_case):
    case = Parity(load_case("trellis/mod_block_share"))
    block = case.seed(build(case.config, share_mod=True, qk_rms_norm=True))
    (out,) = block([case["x"]], case["mod"], [Condition(case["context"])], Dense())
    case.check("out", out)


@torch.inference_mode()
def test_sparse_cross_block(load_case):
    case = Parity(load_case("trellis/mod_sparse_cross_block"))
    block = case.seed(build(case.config, qk_rms_norm=True))
    layout = Voxels(case["coords"]).layout
    (out,) = block([case["feats"]], case["mod"], [Condition(case["context"])], layout)
    case.check("out", out)


@torch.inference_mode()
@pytest.mark.parametrize("qk_norm", [False, True])
def test_sparse_self_attention(load_case, qk_norm):
    case = Parity(load_case("trellis/sparse_attention_full"))
    attention = case.seed(SelfAttention(case.config["channels"], case.config["num_heads"], qk_norm))
    out = attention(case["feats"], Voxels(case["coords"]).layout.attend)
    case.check("self_qknorm" if qk_norm else "self_plain", out)


@torch.inference_mode()
def test_sparse_cross_attention(load_case):
    case = Parity(load_case("trellis/sparse_attention_full"))
    config = case.config
    attention = case.seed(
        CrossAttention(config["channels"], config["ctx_channels"], config["num_heads"])
    )
    layout = Voxels(case["coords"]).layout
    case.check("cross_plain", attention(case["feats"], Condition(case["context"]), layout))


@torch.inference_mode()
def test_windowed_attention(load_case):
    case = Parity(load_case("trellis/sparse_attention_windowed"))
    attention = case.seed(SelfAttention(case.config["channels"], case.config["num_heads"]))
    voxels = Voxels(case["coords"])
    assert case.config["variants"]
    for variant in case.config["variants"]:  # such as "w4 s2"
        window, shift = (int(number[1:]) for number in variant.split())
        number = voxels.window_number(window, shift)
        recorded = case[f"window_id_w{window}_s{shift}"]
        pairs = torch.stack([number, recorded]).unique(dim=1)  # the same division: one to one
        assert len(number.unique()) == len(recorded.unique()) == pairs.shape[1]
        out = attention(case["feats"], voxels.windows(window, shift).attend)
        case.check(f"out_w{window}_s{shift}", out)


@torch.inference_mode()
def test_swin_block(load_case):
    case = Parity(load_case("trellis/sparse_swin_block"))
    block = case.seed(TransformerBlock(case.config["channels"], case.config["num_heads"]))
    voxels = Voxels(case["coords"])
    for shift in case.config["shift_window"]:
        windows = voxels.windows(case.config["window_size"], shift)
        case.check(f"out_shift{shift}", block(case["feats"], windows.attend))
