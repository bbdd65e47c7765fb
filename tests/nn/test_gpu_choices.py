"""What a GPU computes with, if it is installed and asked for: against the plain twins."""

from importlib.util import find_spec

import pytest
import torch

from onelook.errors import OptionError
from onelook.nn.attention import Groups, attend_in_groups_plain, attention, attention_plain
from onelook.nn.gpu_attention import attend_ragged_plain, gpu_attention
from onelook.nn.gpu_convolution import convolve_by_spconv, gpu_convolution
from onelook.nn.sparse_conv import convolve, convolve_plain
from onelook.nn.voxels import Voxels

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def choose_anew():
    """Choices are made once per process; here once per test."""
    for choice in (gpu_attention, gpu_convolution):
        choice.cache_clear()
    yield
    for choice in (gpu_attention, gpu_convolution):
        choice.cache_clear()


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scattered(count, size, items=2):
    generator = torch.Generator().manual_seed(0)
    cells = torch.stack(
        [torch.randperm(size**3, generator=generator)[:count] for _ in range(items)]
    )
    xyz = torch.stack([cells // size**2, cells // size % size, cells % size], -1)
    item = torch.arange(items)[:, None, None].expand(-1, count, 1)
    return torch.cat([item, xyz], -1).flatten(0, 1).int()


@pytest.mark.parametrize("sizes", [[5, 5, 5], [1, 40, 3, 3, 17, 2, 38, 1], [300, 1, 280]])
def test_groups_in_a_row_equal_one_call_per_group(sizes):
    numbers = torch.cat([torch.full((n,), 10 * i) for i, n in enumerate(sizes)])
    shuffled = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(3))]
    q, k, v = (draw(len(numbers), 2, 8, seed=seed) for seed in range(3))
    got = Groups(shuffled).attend_by(attend_ragged_plain, q, k, v)
    torch.testing.assert_close(got, attend_in_groups_plain(q, k, v, shuffled))


@pytest.mark.parametrize("sizes", [[12], [1, 40, 3, 17]])
def test_what_is_chosen_is_called(monkeypatch, sizes):
    """Where q is what flash attention takes; here as on a GPU, with the written out form."""
    monkeypatch.setenv("ATTN_BACKEND", "naive")
    number = torch.repeat_interleave(torch.tensor(sizes))
    q, k, v = (draw(len(number), 2, 8, seed=seed) for seed in range(3))
    usual = Groups(number).attend(q, k, v)
    monkeypatch.setattr("onelook.nn.attention.is_for_flash", lambda q: True)
    groups = Groups(number)
    torch.testing.assert_close(groups.attend(q, k, v), usual)
    assert "_packed" not in vars(groups)  # no buckets were needed


def test_attention_is_chosen_by_what_is_there(monkeypatch):
    monkeypatch.delenv("ATTN_BACKEND", raising=False)
    assert gpu_attention().name == ("flash_attn" if find_spec("flash_attn") else "sdpa")


@pytest.mark.parametrize("wish", ["sdpa", "naive"])
def test_attention_as_wished(monkeypatch, wish, caplog):
    monkeypatch.setenv("ATTN_BACKEND", wish)
    with caplog.at_level("INFO"):
        assert gpu_attention().name == wish
        assert gpu_attention() is gpu_attention()
    assert caplog.messages == [f"attention on a GPU: {wish}"]


def test_wishes_that_cannot_be_granted(monkeypatch):
    monkeypatch.setenv("ATTN_BACKEND", "xformers")
    with pytest.raises(OptionError, match="auto, flash_attn, sdpa, naive, got 'xformers'"):
        gpu_attention()
    monkeypatch.setenv("SPCONV_ALGO", "fast")
    with pytest.raises(OptionError, match="auto, implicit_gemm, native, torch, got 'fast'"):
        gpu_convolution()
    if not find_spec("flash_attn"):
        monkeypatch.setenv("ATTN_BACKEND", "flash_attn")
        with pytest.raises(OptionError, match="asks for flash_attn, which cannot be imported"):
            gpu_attention()
    if not find_spec("spconv"):
        monkeypatch.setenv("SPCONV_ALGO", "native")
        with pytest.raises(OptionError, match="asks for spconv, which cannot be imported"):
            gpu_convolution()


@torch.inference_mode()
@pytest.mark.parametrize("cin, cout", [(20, 24), (128, 16)])
def test_spconv_equals_the_dense_convolution(cin, cout):
    """On a CPU at one thread, where spconv is right; twice, because it keeps its pairs."""
    pytest.importorskip("spconv.pytorch")
    assert torch.get_num_threads() == 1
    voxels = Voxels(scattered(400, 11))
    for seed in (0, 1):
        feats, bias = draw(len(voxels), cin, seed=seed), draw(cout)
        weight = draw(cout, 3, 3, 3, cin, seed=seed) / (27 * cin) ** 0.5
        got = convolve_by_spconv(feats, voxels, weight, bias)
        wanted = convolve_plain(feats, voxels, weight, bias)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert len(voxels.of_spconv["pairs"]) == 1


@pytest.mark.gpu
@NEEDS_GPU
@torch.inference_mode()
@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("wish", ["flash_attn", "sdpa"])
def test_gpu_attention_equals_its_twin(monkeypatch, wish, kind):
    if wish == "flash_attn":
        pytest.importorskip("flash_attn")
    monkeypatch.setenv("ATTN_BACKEND", wish)
    for width in (64, 80):
        q, k, v = (draw(2, 300, 4, width, seed=seed).cuda().to(kind) for seed in range(3))
        near(attention(q, k[:, :77], v[:, :77]), attention_plain(q, k[:, :77], v[:, :77]))
        number = torch.randint(0, 20, (600,), generator=torch.Generator().manual_seed(1)).cuda()
        rows = [t.flatten(0, 1) for t in (q, k, v)]
        near(Groups(number).attend(*rows), attend_in_groups_plain(*rows, number))


@pytest.mark.gpu
@NEEDS_GPU
@torch.inference_mode()
@pytest.mark.parametrize("kind", [torch.float32, *HALVES])
@pytest.mark.parametrize("wish", ["torch", "auto", "implicit_gemm", "native"])
def test_gpu_convolution_equals_its_twin(monkeypatch, wish, kind):
    if wish != "torch":
        pytest.importorskip("spconv.pytorch")
    monkeypatch.setenv("SPCONV_ALGO", wish)
    voxels = Voxels(scattered(3000, 24).cuda())
    feats, bias = draw(len(voxels), 64).cuda(), draw(128).cuda()
    weight = (draw(128, 3, 3, 3, 64) / (27 * 64) ** 0.5).cuda()
    got = convolve(feats.to(kind), voxels, weight.to(kind), bias.to(kind))
    near(got, convolve_plain(feats, voxels, weight, bias))


def near(got, wanted):
    error = (got.double() - wanted.double()).norm() / wanted.double().norm()
    assert error < 0.01 and got.isfinite().all()
