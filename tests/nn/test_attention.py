"""The fast forms of attention against the plain twins; what is shared is computed once."""

import pytest
import torch

from onelook.nn.attention import Groups, attend_in_groups_plain, attention, attention_plain
from onelook.nn.condition import Condition
from onelook.nn.layout import Dense, Rows
from onelook.nn.transformer import CrossAttention, ModulatedCrossBlock

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def rows(count, *more, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *more, generator=generator) for _ in range(3)]


def test_attention_equals_its_twin():
    q = rows(2, 7, 3, 8)[0]
    k, v = rows(2, 11, 3, 8, seed=1)[:2]
    torch.testing.assert_close(attention(q, k, v), attention_plain(q, k, v), **CLOSE)


@pytest.mark.parametrize("kind, most", [(torch.bfloat16, 0.01), (torch.float16, 0.001)])
def test_halves_come_near(monkeypatch, kind, most):
    monkeypatch.setattr("onelook.nn.attention.SCORES_BYTES", 40 * 300 * 2)
    q = rows(2, 70, 3, 20)[0].to(kind)
    k, v = (t.to(kind) for t in rows(2, 300, 3, 20, seed=1)[:2])
    got, wanted = attention(q, k, v), attention_plain(q.double(), k.double(), v.double())
    assert got.dtype == kind
    assert (got - wanted).norm() < most * wanted.norm()


@pytest.mark.parametrize("sizes", [[9], [5, 5, 5], [1, 40, 3, 3, 17, 2, 38, 1], [300, 1, 280]])
def test_groups_equal_one_call_per_group(sizes):
    numbers = torch.cat([torch.full((n,), 10 * i) for i, n in enumerate(sizes)])
    shuffled = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(3))]
    q, k, v = rows(len(numbers), 2, 8)
    groups = Groups(shuffled)
    wanted = attend_in_groups_plain(q, k, v, shuffled)
    torch.testing.assert_close(groups.attend(q, k, v), wanted, **CLOSE)


def test_many_groups_need_few_calls():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 512, (500,), generator=generator)
    groups = Groups(torch.repeat_interleave(sizes))
    assert groups.count == 500
    assert len(groups.buckets) < 40
    padded = sum(bucket.rows.numel() for bucket in groups.buckets)
    assert padded < 1.18 * sizes.sum()


def test_a_group_never_sees_another():
    """Not even a value that is not finite."""
    number = torch.tensor([0, 1, 0, 1, 1, 2, 0])
    q, k, v = rows(7, 1, 4)
    k[number == 1] = torch.nan
    v[number == 1] = torch.nan
    out = Groups(number).attend(q, k, v)
    assert out[number != 1].isfinite().all()
    assert out[number == 1].isnan().all()


@torch.inference_mode()
def test_condition_rows():
    """One row serves every item; one row per item serves its own; another number is an error."""
    block = CrossAttention(16, 12, 2)
    context = rows(3, 5, 12)[0]
    tokens = rows(3, 4, 16)[0]
    apart = torch.cat(
        [block(t[None], Condition(c[None]), Dense()) for t, c in zip(tokens, context, strict=True)]
    )
    torch.testing.assert_close(block(tokens, Condition(context), Dense()), apart, **CLOSE)
    sparse = Rows([4, 4, 4], tokens.device)
    got = block(tokens.flatten(0, 1), Condition(context), sparse)
    torch.testing.assert_close(got, apart.flatten(0, 1), **CLOSE)

    shared = torch.cat([block(t[None], Condition(context[:1]), Dense()) for t in tokens])
    torch.testing.assert_close(block(tokens, Condition(context[:1]), Dense()), shared, **CLOSE)
    got = block(tokens.flatten(0, 1), Condition(context[:1]), sparse)
    torch.testing.assert_close(got, shared.flatten(0, 1), **CLOSE)

    for layout, x in [(Dense(), tokens), (sparse, tokens.flatten(0, 1))]:
        with pytest.raises(ValueError, match="1 or 3 rows, got 2"):
            block(x, Condition(context[:2]), layout)


@torch.inference_mode()
@pytest.mark.parametrize("layout", [Dense(), Rows([5, 3], torch.device("cpu"))])
@pytest.mark.parametrize("qk_norm_cross", [False, True])
def test_zero_condition_equals_attention_to_zeros(layout, qk_norm_cross):
    block = ModulatedCrossBlock(16, 12, 2, qk_norm=True, qk_norm_cross=qk_norm_cross)
    x = rows(2, 4, 16)[0] if isinstance(layout, Dense) else rows(8, 16)[0]
    mod, zeros = rows(2, 16)[1], torch.zeros(2, 9, 12)
    (slow,) = block([x], mod, [Condition(zeros)], layout)
    (fast,) = block([x], mod, [Condition.zero(zeros)], layout)
    torch.testing.assert_close(fast, slow, **CLOSE)


@torch.inference_mode()
def test_keys_and_values_are_made_once_and_branches_share():
    block = ModulatedCrossBlock(16, 12, 2)
    calls = dict.fromkeys(("to_kv", "to_qkv", "adaLN_modulation"), 0)

    def count(name, module):
        module.register_forward_hook(lambda *_: calls.update({name: calls[name] + 1}))

    count("to_kv", block.cross_attn.to_kv)
    count("to_qkv", block.self_attn.to_qkv)
    count("adaLN_modulation", block.adaLN_modulation)
    x, mod = rows(1, 4, 16)[0], rows(1, 16)[1]
    conditions = [Condition(tokens) for tokens in rows(1, 5, 12)]
    for _ in range(4):
        together = block([x], mod, conditions, Dense())
    assert calls == {"to_kv": 3, "to_qkv": 4, "adaLN_modulation": 4}
    for branch, condition in zip(together, conditions, strict=True):
        (alone,) = block([x], mod, [Condition(condition.tokens)], Dense())
        assert torch.equal(branch, alone)
