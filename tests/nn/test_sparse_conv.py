"""Every way of convolving sparse tensors against a dense convolution; bookkeeping is kept."""

import pytest
import torch
import torch.nn.functional as F

from onelook.nn import sparse_conv, voxels
from onelook.nn.resblocks import SubdivideBlock
from onelook.nn.sparse_conv import convolve, convolve_plain, convolve_subdivided, convolve_upsampled
from onelook.nn.voxels import SparseTensor, Voxels, subdivide, upsample

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def scattered(count, size, items, seed=0):
    """Voxels of `items` objects, in no order inside an item, up to the border of the box."""
    generator = torch.Generator().manual_seed(seed)
    coords = []
    for item in range(items):
        cells = torch.randperm(size**3, generator=generator)[:count]
        xyz = torch.stack([cells // size**2, cells // size % size, cells % size], 1)
        coords.append(torch.cat([torch.full((count, 1), item), xyz], 1))
    return Voxels(torch.cat(coords).int())


def tensors(voxels, cin, cout, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = (len(voxels), cin), (cout, 3, 3, 3, cin), (cout,)
    feats, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    return feats, weight / (27 * cin) ** 0.5, bias


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cout", [24, sparse_conv.WIDE_CHANNELS])
def test_convolution_equals_the_dense_one(cout, threads):
    coords = scattered(700, 11, items=2)
    feats, weight, bias = tensors(coords, 20, cout)
    wanted = convolve_plain(feats, coords, weight, bias)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runs = [convolve(feats, coords, weight, bias) for _ in range(5)]
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(runs[0], wanted, **CLOSE)
    assert all(torch.equal(run, runs[0]) for run in runs)


def test_convolution_in_several_steps(monkeypatch):
    monkeypatch.setattr(sparse_conv, "GATHERED_BYTES_CPU", 1)
    monkeypatch.setattr(sparse_conv, "ROWS_PER_STEP", 37)
    coords = scattered(200, 7, items=1)
    feats, weight, bias = tensors(coords, 6, 5)
    wanted = convolve_plain(feats, coords, weight, bias)
    torch.testing.assert_close(convolve(feats, coords, weight, bias), wanted, **CLOSE)


def test_neighbours_by_bisection_are_those_of_the_table(monkeypatch):
    coords = scattered(300, 9, items=3).coords
    by_table = Voxels(coords).neighbours
    monkeypatch.setattr(voxels, "TABLE_CELLS", 0)
    assert torch.equal(Voxels(coords).neighbours, by_table)
    assert torch.equal(by_table[:, 13], torch.arange(len(coords), dtype=torch.int32))


@pytest.mark.parametrize("cout", [5, 130])
def test_convolution_of_subdivided_voxels(cout):
    coords = scattered(150, 6, items=2)
    feats, weight, bias = tensors(coords, 7, cout)
    fine = subdivide(SparseTensor(feats, coords))
    wanted = convolve_plain(fine.feats, fine.voxels, weight, bias)
    got = convolve_subdivided(feats, coords, weight, bias)
    torch.testing.assert_close(got, wanted, **CLOSE)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_convolution_of_upsampled_voxels(kind):
    fine = scattered(300, 9, items=2)
    feats, weight, bias = tensors(fine.halving.coarse, 12, 10)
    rows = upsample(SparseTensor(feats, fine.halving.coarse), fine).feats
    wanted = convolve_plain(rows, fine, weight, bias)
    got = convolve_upsampled(feats.to(kind), fine, weight.to(kind), bias.to(kind))
    assert got.dtype == kind
    close = CLOSE if kind == torch.float32 else {"rtol": 0, "atol": 6 * torch.finfo(kind).eps}
    torch.testing.assert_close(got.float(), wanted, **close)


@torch.inference_mode()
def test_subdivide_block_equals_everything_on_the_fine_rows():
    coords = scattered(40, 5, items=2)
    torch.manual_seed(0)
    block = SubdivideBlock(64, 32)
    for parameter in block.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    x = SparseTensor(torch.randn(len(coords), 64), coords)

    norm1, conv1, norm2, conv2 = block.act_layers[0], *(block.out_layers[i] for i in (0, 1, 3))
    h = subdivide(x.with_feats(F.silu(norm1(x.feats, coords.lengths))))
    fine = h.voxels
    rows = convolve_plain(h.feats, fine, conv1.conv.weight, conv1.conv.bias)
    rows = F.silu(norm2(rows, fine.lengths))
    rows = convolve_plain(rows, fine, conv2.conv.weight, conv2.conv.bias)
    wanted = rows + block.skip_connection(subdivide(x)).feats
    torch.testing.assert_close(block(x).feats, wanted, **CLOSE)


def test_bookkeeping_is_kept():
    coords = scattered(50, 6, items=2)
    for name in ("neighbours", "pairs", "halving", "cell_taps", "subdivided", "layout"):
        assert getattr(coords, name) is getattr(coords, name)
    assert coords.windows(4, 2) is coords.windows(4, 2) is not coords.windows(4, 0)


def test_voxels_out_of_order_are_refused():
    with pytest.raises(ValueError, match="must lie together"):
        Voxels(torch.tensor([[0, 1, 1, 1], [1, 0, 0, 0], [0, 2, 2, 2]]).int())
    with pytest.raises(ValueError, match=r"N > 0, got \(0, 4\)"):
        Voxels(torch.zeros(0, 4).int())
