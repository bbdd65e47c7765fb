"""The networks give what the original's give; decoders in pieces give what they give whole."""

import pytest
import torch
from helpers.live_bytes import LiveBytes
from helpers.parity import Parity

from onelook.nn.norms import ChannelLayerNorm
from onelook.nn.patches import unpatchify
from onelook.nn.sparse_conv import convolve, convolve_at, convolve_plain, with_zero_row
from onelook.nn.structure_vae import (
    EPS,
    ResBlock3d,
    UpsampleBlock3d,
    coarsened,
    occupied,
)
from onelook.nn.subdivision import Subdivision, pyramid
from onelook.nn.voxels import SparseTensor, Voxels
from trellis2_backend.config import DecoderConfig
from trellis2_backend.dual_grid import dual_grid_to_mesh
from trellis2_backend.latent_decoder import SparseUnetVaeDecoder
from trellis2_backend.networks import NETWORKS
from trellis2_backend.sparse_blocks import ConvNeXtBlock, DownBlock, UpBlock, side_by_side

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def build(case, config=None, name=None):
    return case.seed(NETWORKS[name or case.case.info["class"]](config or case.config))


def sparse(case, feats="x", coords="coords"):
    return SparseTensor(case[feats], Voxels(case[coords]))


@torch.inference_mode()
def test_structure_flow(load_case):
    case = Parity(load_case("trellis2/ss_flow_tiny"))
    model = build(case)
    keys = case.case.info["state_dict_keys"].keys() - {"rope_phases"}
    assert model.state_dict().keys() == keys
    case.check("out", model(case["x"], case["t"], case["cond"]))


@torch.inference_mode()
def test_shape_flow(load_case):
    case = Parity(load_case("trellis2/slat_flow_shape_tiny"))
    case.check("out", build(case)(sparse(case), case["t"], case["cond"]))


@torch.inference_mode()
def test_texture_flow(load_case):
    case = Parity(load_case("trellis2/slat_flow_tex_tiny"))
    model = build(case, case.config["model"], "SLatFlowModel")
    t = torch.tensor([800.0])
    case.check("out_t800", model(sparse(case), t, case["cond"], case["shape_slat"]))


@torch.inference_mode()
def test_structure_decoder_parts(load_case):
    case = Parity(load_case("trellis2/ss_decoder_parts"))
    width, after = case["x"].shape[1], case["up"].shape[1]
    case.check("norm", case.seed(ChannelLayerNorm(width, eps=EPS))(case["x"]))
    case.check("res", case.seed(ResBlock3d(width, width))(case["x"]))
    case.check("up", case.seed(UpsampleBlock3d(width, after))(case["x"]))
    case.check("shuffle", unpatchify(case["x"], 2))


@torch.inference_mode()
def test_structure_decoder(load_case):
    case = Parity(load_case("trellis2/ss_decoder_tiny"))
    logits = build(case)(case["z"])
    case.check("logits", logits)
    case.check("coords_full", occupied(logits))
    case.check("coords_half", coarsened(logits > 0, logits.shape[-1] // 2))


def test_convolution(load_case):
    case = Parity(load_case("trellis2/sparse_conv"))
    x = sparse(case)
    case.check("out", convolve(x.feats, x.voxels, case["weight"], case["bias"]))
    rows = torch.tensor([7, 3, 3, 40])
    table = x.voxels.neighbours[rows]
    got = convolve_at(with_zero_row(x.feats), table, case["weight"], case["bias"])
    torch.testing.assert_close(got, case["out"][rows], **case.tolerance)


def test_children_side_by_side_and_back(load_case):
    case = Parity(load_case("trellis2/sparse_s2c_c2s"))
    x = sparse(case)
    (half,) = pyramid(x.voxels, 1)
    case.check("down_coords", half.coarse.coords)
    down = side_by_side(x.feats, half.children)
    case.check("down", down)
    case.check("back_coords", half.fine.coords)
    slots = case["coords"][:, 1:] % 2 @ torch.tensor([1, 2, 4], dtype=torch.int32)
    back = down.unflatten(1, (8, -1))[half.parent.long(), slots.long()]
    case.check("back", back)
    up = Subdivision.of_mask(half.coarse, case["sub_logits"] > 0)
    case.check("up_coords", up.fine.coords)
    case.check("up", case["coarse_feats"].unflatten(1, (8, -1))[up.children < len(up.fine)])


@torch.inference_mode()
def test_blocks(load_case):
    case = Parity(load_case("trellis2/sparse_unet_blocks"))
    x = sparse(case)
    width, finer, coarser = (case[name].shape[1] for name in ("x", "up", "down"))
    case.check("convnext", case.seed(ConvNeXtBlock(width))(x).feats)
    up = case.seed(UpBlock(width, finer, pred_subdiv=True))
    assert up.state_dict().keys() == case.case.info["keys_up"].keys()
    raised = up(x, finish=lambda rows: rows)
    case.check("up_sub", raised.logits)
    case.check("up_coords", raised.x.voxels.coords)
    case.check("up", raised.x.feats)
    given = Subdivision.of_mask(x.voxels, case["up_sub"] > 0)
    guided = case.seed(UpBlock(width, finer, pred_subdiv=False))(x, given, lambda rows: rows)
    case.check("guided_coords", guided.x.voxels.coords)
    case.check("guided", guided.x.feats)
    (half,) = pyramid(x.voxels, 1)
    block = case.seed(DownBlock(width, coarser))
    assert block.state_dict().keys() == case.case.info["keys_down"].keys()
    down = block(SparseTensor(x.feats, half.fine), half)
    case.check("down_coords", down.voxels.coords)
    case.check("down", down.feats)


@torch.inference_mode()
@pytest.mark.parametrize("working_bytes", [2**28, 20_000])
def test_shape_decoder(load_case, monkeypatch, working_bytes):
    monkeypatch.setattr("trellis2_backend.sparse_blocks.WORKING_BYTES", working_bytes)
    case = Parity(load_case("trellis2/shape_decoder_tiny"))
    decoder, x = build(case), sparse(case, "z")
    decoded = decoder.decode(x)
    case.check("raw_coords", decoded.x.voxels.coords)
    case.check("raw", decoded.x.feats)
    for level, (logits, found) in enumerate(zip(decoded.logits, decoded.subdivisions, strict=True)):
        case.check(f"sub{level}_coords", found.coarse.coords)
        case.check(f"sub{level}", logits)
        assert torch.equal(decoder.upsample(x, level + 1).coords, found.fine.coords)
        case.check(f"upsample{level + 1}", found.fine.coords)
    resolution = case.config["resolution"]
    for number, grid in enumerate(decoder.dual_grids(decoded.x, resolution)):
        mesh = dual_grid_to_mesh(grid)
        case.check(f"mesh{number}_vertices", mesh.vertices)
        case.check(f"mesh{number}_faces", mesh.faces)
    finer = decoder.dual_grids(decoded.x, 64)[0]
    case.check("mesh0_vertices_res64", dual_grid_to_mesh(finer).vertices)


@torch.inference_mode()
@pytest.mark.parametrize("working_bytes", [2**28, 20_000])
def test_texture_decoder(load_case, monkeypatch, working_bytes):
    monkeypatch.setattr("trellis2_backend.sparse_blocks.WORKING_BYTES", working_bytes)
    case = Parity(load_case("trellis2/tex_decoder_tiny"))
    voxels = Voxels(case["coords"])
    given = [Subdivision.of_mask(voxels, case["sub0"] > 0)]
    given.append(Subdivision.of_mask(given[0].fine, case["sub1"] > 0))
    out = build(case, name="SparseUnetVaeDecoder")(SparseTensor(case["tex_z"], voxels), given)
    case.check("out_coords", out.voxels.coords)
    case.check("out", out.feats)
    case.check("pbr", 0.5 * out.feats + 0.5)


@torch.inference_mode()
def test_shape_encoder_and_the_way_back(load_case):
    case = Parity(load_case("trellis2/shape_encoder_tiny"))
    encoder = build(case, case.config["encoder"], "FlexiDualGridVaeEncoder")
    levels = pyramid(Voxels(case["coords"]), encoder.config.doublings)
    z = encoder(encoder.features(case["vertices"], case["intersected"]), levels)
    case.check("z_coords", z.voxels.coords)
    case.check("z", z.feats)
    decoder = build(case, case.config["decoder"], "SparseUnetVaeDecoder")
    out = decoder(z.with_feats(case["tex_z"]), levels[::-1])
    case.check("out_coords", out.voxels.coords)
    case.check("out", out.feats)


def scattered(count, size, items=2):
    generator = torch.Generator().manual_seed(0)
    cells = [torch.randperm(size**3, generator=generator)[:count] for _ in range(items)]
    item = torch.repeat_interleave(torch.full((items,), count))
    cell = torch.cat(cells)
    coords = torch.stack([item, cell // size**2, cell // size % size, cell % size], 1)
    return Voxels(coords.int())


def test_neighbours_are_found_without_a_search_on_every_level():
    coarse = scattered(60, 7)
    mask = torch.rand(len(coarse), 8, generator=torch.Generator().manual_seed(1)) > 0.6
    fine = Subdivision.of_mask(coarse, mask).fine
    assert torch.equal(fine.neighbours, Voxels(fine.coords).neighbours)
    for level in pyramid(scattered(300, 16), 3):
        searched = Voxels(level.fine.coords).neighbours
        some = torch.tensor([5, 0, 5, 17])
        assert torch.equal(level.fine.neighbours_of(some), searched[some])
        assert torch.equal(level.fine.neighbours, searched)
        own = level.children[level.parent.long()]
        rows = torch.arange(len(level.fine), dtype=torch.int32)[:, None]
        assert (own == rows).sum(1).eq(1).all()


@torch.inference_mode()
@pytest.mark.parametrize("pieces", [1, 4, 50])
def test_a_block_in_pieces_equals_the_plain_way(monkeypatch, pieces):
    """Doubling the resolution against convolutions of everything at once."""
    coarse = scattered(200, 9)
    torch.manual_seed(0)
    block = UpBlock(32, 16, pred_subdiv=True)
    x = SparseTensor(torch.randn(len(coarse), 32), coarse)
    if pieces > 1:
        row_bytes = 8 * (5 * 16 * 4 + 27 * 12)
        working = len(coarse) * row_bytes // pieces
        monkeypatch.setattr("trellis2_backend.sparse_blocks.WORKING_BYTES", working)
    raised = block(x, finish=lambda rows: rows)
    fine, mask = raised.x.voxels, raised.logits > 0
    silu, norm = torch.nn.functional.silu, torch.nn.functional.layer_norm
    h = convolve_plain(
        silu(block.norm1(x.feats)), coarse, block.conv1.weight, block.conv1.bias
    ).view(-1, 8, 16)[mask]
    h = silu(norm(h, (16,), eps=1e-6))
    h = convolve_plain(h, fine, block.conv2.weight, block.conv2.bias)
    wanted = h + x.feats.view(-1, 8, 4)[mask].repeat_interleave(4, dim=1)
    torch.testing.assert_close(raised.x.feats, wanted, **CLOSE)


@torch.inference_mode()
def test_convnext_in_pieces(monkeypatch):
    coarse = scattered(100, 6)
    torch.manual_seed(0)
    block = ConvNeXtBlock(16)
    x = SparseTensor(torch.randn(len(coarse), 16), coarse)
    whole = block(x).feats
    monkeypatch.setattr("trellis2_backend.sparse_blocks.WORKING_BYTES", 5000)
    torch.testing.assert_close(block(x).feats, whole, **CLOSE)


@torch.inference_mode()
def test_blocks_on_the_finest_level():
    """No official decoder has any, but the numbers of its json allow them."""
    torch.manual_seed(0)
    config = DecoderConfig(
        model_channels=[32, 16], num_blocks=[0, 1], latent_channels=4, out_channels=3
    )
    decoder = SparseUnetVaeDecoder(config)
    coarse = scattered(80, 6)
    x = SparseTensor(torch.randn(len(coarse), 4), coarse)
    up, (block,) = decoder.blocks[0][0], decoder.blocks[1]
    h = block(up(x.with_feats(decoder.from_latent(x.feats)), finish=lambda rows: rows).x)
    wanted = decoder.output_layer(torch.nn.functional.layer_norm(h.feats, (16,)))
    got = decoder(x)
    assert torch.equal(got.voxels.coords, decoder.upsample(x, 1).coords)
    torch.testing.assert_close(got.feats, wanted, **CLOSE)
    with pytest.raises(ValueError, match="either found or given"):
        decoder(x, pyramid(coarse, 1))


@torch.inference_mode()
def test_memory_grows_by_what_is_kept_alone(monkeypatch):
    """Four times the voxels: besides the input's norm and the output no more is needed."""
    working = 2 * 2**20
    monkeypatch.setattr("trellis2_backend.sparse_blocks.WORKING_BYTES", working)
    monkeypatch.setattr("onelook.nn.sparse_conv.GATHERED_BYTES_CPU", working // 4)
    block = UpBlock(32, 16, pred_subdiv=False)
    plain = ConvNeXtBlock(32)
    needed = []
    for side in (16, 32, 64):
        cells = torch.cartesian_prod(*3 * [torch.arange(side)])
        shell = cells[((cells == 0) | (cells == side - 1)).any(1)].int()
        (level,) = pyramid(Voxels(torch.nn.functional.pad(shell, (1, 0))), 1)
        x = SparseTensor(torch.randn(len(level.coarse), 32), level.coarse)
        assert len(x.voxels.neighbours) == len(x.voxels)
        with LiveBytes() as live:
            raised = block(x, level, lambda rows: rows[:, :7].clone())
        kept = 4 * (x.feats.numel() + raised.x.feats.numel() + len(level.fine))
        needed.append(live.peak - kept)
        with LiveBytes() as live:
            plain(x)
        assert live.peak - 2 * 4 * x.feats.numel() < 1.5 * working
    assert needed[0] < needed[1] < 3 * working and needed[2] < 3 * working
    whole = 8 * (5 * 16 * 4 + 27 * 12) * len(x.voxels)  # what it would be in one piece
    assert whole > 9 * working
