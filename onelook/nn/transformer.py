"""Transformer blocks of the flow models and of the latent decoders.

A flow block computes several branches at once: the same input under several conditions (with and
without guidance, or one per picture). What does not depend on the condition is shared, and weights
that are streamed to the device come once for all branches.

Tokens are (B, L, C) or (T, C); see `layout`. H heads, D width of a head, C = H * D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from onelook.nn.condition import Condition
from onelook.nn.layout import Layout
from onelook.nn.norms import HeadRMSNorm, LayerNorm, layer_norm, modulated_norm
from onelook.nn.pieces import in_pieces

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
EPS = 1e-6  # of every norm inside a block


class FeedForward(nn.Module):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, channels: int, mlp_ratio: float):
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (..., C) -> (..., C)."""
        rows = tokens.flatten(0, -2)
        row_bytes = 2 * self.mlp[0].out_features * tokens.element_size()
        return in_pieces(self.mlp, rows, row_bytes=row_bytes).view(tokens.shape)


class SelfAttention(nn.Module):
    """Tokens attend to each other; who to whom, the caller says."""

    def __init__(self, channels: int, heads: int, qk_norm: bool = False):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        if qk_norm:
            self.q_rms_norm = HeadRMSNorm(heads, channels // heads)
            self.k_rms_norm = HeadRMSNorm(heads, channels // heads)
        self.has_qk_norm = qk_norm
        self.to_out = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, attend: Attend) -> Tensor:
        """tokens (..., C) -> (..., C); attend: q, k, v (..., H, D) -> (..., H, D), which may write
        over q and k."""
        qkv = self.to_qkv(tokens).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.unbind(-3)  # (..., H, D) each
        if self.has_qk_norm:
            q, k = self.q_rms_norm.over(q), self.k_rms_norm.over(k)
        return self.to_out(attend(q, k, v).flatten(-2))


class CrossAttention(nn.Module):
    """Tokens attend to a condition."""

    def __init__(self, channels: int, condition_channels: int, heads: int, qk_norm: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(condition_channels, 2 * channels)
        if qk_norm:
            self.q_rms_norm = HeadRMSNorm(heads, channels // heads)
            self.k_rms_norm = HeadRMSNorm(heads, channels // heads)
        self.has_qk_norm = qk_norm
        self.to_out = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, condition: Condition, layout: Layout) -> Tensor:
        """tokens (..., C) -> what is added to them; keys and values are made once."""
        k, v = condition.once(self, self._keys_and_values)
        q = self.to_q(tokens).unflatten(-1, (self.heads, -1))  # (..., H, D)
        if self.has_qk_norm:
            q = self.q_rms_norm.over(q)
        return self.to_out(layout.attend_to(q, k, v).flatten(-2))

    def of_one_token(self, condition: Condition) -> Tensor:
        """What a condition of a single token adds to every token of an item: (B, C)."""
        return condition.once(self, self._constant)

    def _keys_and_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        kv = self.to_kv(tokens.to(self.to_kv.weight.dtype))
        k, v = kv.unflatten(-1, (2, self.heads, -1)).unbind(-3)  # (B, L, H, D) each
        return (self.k_rms_norm(k) if self.has_qk_norm else k), v

    def _constant(self, tokens: Tensor) -> Tensor:
        _, v = self._keys_and_values(tokens)
        return self.to_out(v.flatten(-2)[:, 0])


class ModulatedCrossBlock(nn.Module):
    """Self attention, cross attention, MLP; the first and last modulated by time (adaLN).

    share_mod: the six vectors come from the model, made once for all its blocks; shift_mod: and the
    block adds its own to them.
    """

    def __init__(
        self,
        channels: int,
        condition_channels: int,
        heads: int,
        mlp_ratio: float = 4,
        qk_norm: bool = False,
        qk_norm_cross: bool = False,
        share_mod: bool = False,
        shift_mod: bool = False,
    ):
        super().__init__()
        self.norm2 = LayerNorm(channels, eps=EPS)
        self.self_attn = SelfAttention(channels, heads, qk_norm)
        self.cross_attn = CrossAttention(channels, condition_channels, heads, qk_norm_cross)
        self.mlp = FeedForward(channels, mlp_ratio)
        if not share_mod:
            self.adaLN_modulation = adaln(channels)
        elif shift_mod:
            self.modulation = nn.Parameter(torch.empty(6 * channels))
            nn.init.normal_(self.modulation, std=channels**-0.5)
        self.has_own_mod = not share_mod
        self.has_shift = share_mod and shift_mod

    def forward(
        self,
        branches: Sequence[Tensor],
        mod: Tensor,
        conditions: Sequence[Condition],
        layout: Layout,
    ) -> list[Tensor]:
        """branches: tokens under each of `conditions`, or one for all of them while they are still
        the same; mod (B or 1, C), with share_mod (B or 1, 6 C) -> tokens per condition."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.six_vectors(mod, layout)
        hidden = []
        for x in branches:
            h = modulated_norm(x, shift1, scale1, EPS)
            hidden.append(_add_gated(x, gate1, self.self_attn(h, layout.attend)))
        if len(hidden) < len(conditions):
            hidden = hidden * len(conditions)
        out = []
        for x, condition in zip(hidden, conditions, strict=True):
            x = x + self.cross(x, condition, layout)
            h = modulated_norm(x, shift2, scale2, EPS)
            out.append(_add_gated(x, gate2, self.mlp(h)))
        return out

    def six_vectors(self, mod: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        """shift, scale, gate of the self attention, then of the MLP, broadcast to tokens."""
        if self.has_own_mod:
            mod = self.adaLN_modulation(mod)
        elif self.has_shift:
            mod = (self.modulation + mod).to(mod.dtype)
        return layout.spread(mod).chunk(6, dim=-1)

    def cross(self, tokens: Tensor, condition: Condition, layout: Layout) -> Tensor:
        """What the condition adds to each token; not modulated."""
        if condition.has_one_token:
            return layout.spread(self.cross_attn.of_one_token(condition))
        return self.cross_attn(self.norm2(tokens), condition, layout)


class TransformerBlock(nn.Module):
    """Self attention, MLP; norms without weights."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float = 4):
        super().__init__()
        self.attn = SelfAttention(channels, heads)
        self.mlp = FeedForward(channels, mlp_ratio)

    def forward(self, tokens: Tensor, attend: Attend) -> Tensor:
        """tokens (..., C) -> (..., C)."""
        tokens = tokens + self.attn(layer_norm(tokens, EPS), attend)
        return tokens + self.mlp(layer_norm(tokens, EPS))


def _add_gated(x: Tensor, gate: Tensor, change: Tensor) -> Tensor:
    """x + gate * change, written over `change`: for inference."""
    return torch.addcmul(x, gate, change, out=change)


def adaln(channels: int) -> nn.Sequential:
    """From the time's vector (B, C) to the six vectors of a block (B, 6 C)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))
