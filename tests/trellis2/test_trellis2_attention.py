"""Rotary places, attention and blocks of the flow models give what the original's give."""

import pytest
import torch
from helpers.parity import Parity

from onelook.nn.condition import Condition
from onelook.nn.embedders import TimestepEmbedder, time_waves
from onelook.nn.layout import Dense
from onelook.nn.norms import HeadRMSNorm
from onelook.nn.rotary import Rotated, grid_phases, rotary_frequencies, rotary_phases, rotate
from onelook.nn.transformer import CrossAttention, ModulatedCrossBlock, SelfAttention
from onelook.nn.voxels import Voxels


def layout_of(case, head_width):
    """The places of a recorded case, in whichever form it has them."""
    if "pos" in case.case.arrays:
        return Rotated(Dense(), rotary_phases(case["pos"], head_width))
    voxels = Voxels(case["coords"])
    return Rotated(voxels.layout, voxels.phases(head_width))


def test_rotation_of_dense_tokens(load_case):
    case = Parity(load_case("trellis2/rope_dense"))
    for width in case.config["head_dims"]:
        phases = rotary_phases(case[f"idx_{width}"], width)
        case.check(f"freqs_{width}", rotary_frequencies(width))
        case.check(f"phases_{width}", torch.view_as_real(phases))
        turned = torch.stack([rotate(item, phases) for item in case[f"q_{width}"]])
        case.check(f"out_{width}", turned)


def test_rotation_of_voxels(load_case):
    case = Parity(load_case("trellis2/rope_sparse"))
    phases = Voxels(case["coords"]).phases(case.config["head_dim"])
    case.check("q_out", rotate(case["q"], phases))
    case.check("k_out", rotate(case["k"], phases))


def test_products_depend_on_differences_of_places_alone():
    q, k = torch.randn(2, 1, 1, 24, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([[3, 1, 2], [5, 0, 9]])
    products = []
    for shift in (0, 17):
        one, other = (rotary_phases(place[None] + shift, 24) for place in places)
        products.append((rotate(q, one) * rotate(k, other)).sum())
    torch.testing.assert_close(*products)
    torch.testing.assert_close(rotate(q, one).norm(), q.norm())


def test_a_table_made_while_building_networks_is_no_empty_one():
    with torch.device("meta"):
        phases = grid_phases(3, 14)
    assert phases.device.type == "cpu"
    cells = torch.cartesian_prod(*3 * [torch.arange(3)])
    assert torch.equal(phases, rotary_phases(cells, 14))


def test_norm_of_heads(load_case):
    case = Parity(load_case("trellis2/rms_norm"))
    norm = HeadRMSNorm(case.config["heads"], case.config["dim"])
    norm.gamma.data = case["gamma"]
    case.check("out_dense", norm(case["x"]).detach())
    case.check("out_sparse", norm(case["x"].flatten(0, 1)).detach())


@torch.inference_mode()
def test_time(load_case):
    case = Parity(load_case("trellis2/timestep_embedder"))
    config = case.config
    channels = config["frequency_embedding_size"]
    case.check("freq", time_waves(case["t"], channels))
    case.check("out", case.seed(TimestepEmbedder(config["hidden_size"], channels))(case["t"]))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["mha_dense", "mha_sparse"])
def test_attention(load_case, name):
    case = Parity(load_case(f"trellis2/{name}"))
    channels, heads = case.config["channels"], case.config["num_heads"]
    layout = layout_of(case, channels // heads)
    own = case.seed(SelfAttention(channels, heads, qk_norm=True))
    case.check("self_out", own(case["x"], layout.attend))
    cross = case.seed(CrossAttention(channels, case.config["ctx_channels"], heads, qk_norm=True))
    case.check("cross_out", cross(case["x"], Condition(case["ctx"]), layout))
    if "plain_out" in case.case.arrays:
        plain = case.seed(SelfAttention(channels, heads))
        case.check("plain_out", plain(case["x"], Dense().attend))


@torch.inference_mode()
@pytest.mark.parametrize(
    "name, share_mod, mod, out",
    [
        ("mod_cross_block_dense", True, "mod_shared", "out_share_mod"),
        ("mod_cross_block_dense", False, "mod_own", "out_own_mod"),
        ("mod_cross_block_sparse", True, "mod", "out"),
    ],
)
def test_block(load_case, name, share_mod, mod, out):
    case = Parity(load_case(f"trellis2/{name}"))
    config = case.config
    block = ModulatedCrossBlock(
        config["channels"],
        config["ctx_channels"],
        config["num_heads"],
        config["mlp_ratio"],
        config["qk_rms_norm"],
        config["qk_rms_norm_cross"],
        share_mod,
        shift_mod=True,
    )
    layout = layout_of(case, config["channels"] // config["num_heads"])
    (got,) = case.seed(block)([case["x"]], case[mod], [Condition(case["ctx"])], layout)
    case.check(out, got)


@torch.inference_mode()
@pytest.mark.parametrize("items", [1, 2])
def test_pieces_change_nothing(monkeypatch, items):
    """Norms, rotations and the MLP in pieces of a few rows, in a dense batch and on rows."""
    torch.manual_seed(0)
    block = ModulatedCrossBlock(24, 12, 2, qk_norm=True, qk_norm_cross=True, share_mod=True)
    x, mod = torch.randn(items, 27, 24), torch.randn(items, 144)
    condition = Condition(torch.randn(items, 5, 12))
    layout = Rotated(Dense(), grid_phases(3, 12))
    (whole,) = block([x], mod, [condition], layout)
    monkeypatch.setattr("onelook.nn.pieces.PIECE_BYTES", 1000)
    (pieces,) = block([x], mod, [condition], layout)
    torch.testing.assert_close(pieces, whole)
