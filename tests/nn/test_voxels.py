"""Sparse primitives give what the original's give: convolution, resampling, norms, blocks."""

import pytest
import torch
from helpers.parity import Parity

from onelook.nn.norms import RowGroupNorm
from onelook.nn.resblocks import SparseResBlock, SubdivideBlock, WrappedConv
from onelook.nn.voxels import SparseTensor, Voxels, downsample, subdivide, upsample


def sparse(case):
    return SparseTensor(case["feats"], Voxels(case["coords"]))


@torch.inference_mode()
@pytest.mark.parametrize("kernel_size", [3, 1])
def test_submanifold_convolution(load_case, kernel_size):
    case = Parity(load_case("trellis/subm_conv"))
    conv = case.seed(WrappedConv(case.config["in"], case.config["out"], kernel_size))
    case.check(f"out_k{kernel_size}", conv(sparse(case)).feats)


@torch.inference_mode()
def test_down_and_up(load_case):
    case = Parity(load_case("trellis/sparse_updown"))
    x = sparse(case)
    coarse = downsample(x)
    case.check("down_coords", coarse.voxels.coords)
    case.check("down_feats", coarse.feats)
    fine = upsample(coarse.with_feats(2 * coarse.feats + 1), x.voxels)
    case.check("up_coords", fine.voxels.coords)
    case.check("up_feats", fine.feats)


@torch.inference_mode()
def test_group_norm(load_case):
    case = Parity(load_case("trellis/sparse_group_norm"))
    norm = RowGroupNorm(case.config["num_groups"], case.config["num_channels"], case.config["eps"])
    x = sparse(case)
    case.check("out", case.seed(norm)(x.feats, x.voxels.lengths))


@torch.inference_mode()
def test_residual_blocks(load_case):
    case = Parity(load_case("trellis/sparse_res_block"))
    x, emb, width = sparse(case), case["emb"], case.config["emb_channels"]

    def block(name, **options):
        low, high = case.config[name]
        return case.seed(SparseResBlock(low, width, high, **options))

    case.check("plain", block("plain")(x, emb).feats)
    case.check("widen", block("widen")(x, emb).feats)
    down = block("down", halve=True)(x, emb)
    case.check("down_coords", down.voxels.coords)
    case.check("down", down.feats)
    up = block("up", double=True)(down, emb, x.voxels)
    case.check("up_coords", up.voxels.coords)
    case.check("up", up.feats)


@torch.inference_mode()
def test_subdivision(load_case):
    case = Parity(load_case("trellis/sparse_subdivide"))
    x = sparse(case)
    fine = subdivide(x.with_feats(x.feats[:, : case["sub_feats"].shape[1]]))
    case.check("sub_coords", fine.voxels.coords)
    case.check("sub_feats", fine.feats)
    block = case.seed(SubdivideBlock(case.config["channels"], case.config["out_channels"]))
    out = block(x)
    case.check("block_coords", out.voxels.coords)
    case.check("block_feats", out.feats)
