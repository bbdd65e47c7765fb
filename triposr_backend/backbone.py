"""The transformer between the learned triplane tokens and the triplane.

Channels come first outside, tokens first inside, as in the checkpoint's original.

B pictures, N tokens of the planes, L tokens of the picture, C channels, W width of the blocks.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from onelook.nn.attention import attention
from onelook.nn.norms import LayerNorm
from triposr_backend.config import BackboneConfig

GROUP_EPS, BLOCK_EPS = 1e-6, 1e-5


class Transformer1D(nn.Module):
    """Norm, projection, blocks, projection; what comes in is added to what comes out."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, config.in_channels, eps=GROUP_EPS)
        self.proj_in = nn.Linear(config.in_channels, config.width)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(
                config.width,
                config.num_attention_heads,
                config.attention_head_dim,
                config.cross_attention_dim,
            )
            for _ in range(config.num_layers)
        )
        self.proj_out = nn.Linear(config.width, config.in_channels)

    def forward(self, tokens: Tensor, picture: Tensor) -> Tensor:
        """tokens (B, C, N), picture (B, L, C of the picture) -> (B, C, N)."""
        hidden = self.proj_in(self.norm(tokens).transpose(1, 2).contiguous())  # (B, N, W)
        for block in self.transformer_blocks:
            hidden = block(hidden, picture)
        return self.proj_out(hidden).transpose(1, 2) + tokens


class TransformerBlock(nn.Module):
    """Self attention, cross attention, gated MLP."""

    def __init__(self, width: int, heads: int, head_width: int, picture_width: int):
        super().__init__()
        self.norm1 = LayerNorm(width, eps=BLOCK_EPS)
        self.attn1 = Attention(width, heads, head_width, width)
        self.norm2 = LayerNorm(width, eps=BLOCK_EPS)
        self.attn2 = Attention(width, heads, head_width, picture_width)
        self.norm3 = LayerNorm(width, eps=BLOCK_EPS)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, picture: Tensor) -> Tensor:
        """tokens (B, N, W), picture (B, L, C of the picture) -> (B, N, W)."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attn1(normed, normed)
        tokens = tokens + self.attn2(self.norm2(tokens), picture)
        return tokens + self.ff(self.norm3(tokens))


class Attention(nn.Module):
    """Queries of one sequence, keys and values of another."""

    def __init__(self, width: int, heads: int, head_width: int, source_width: int):
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(source_width, inner, bias=False)
        self.to_v = nn.Linear(source_width, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])

    def forward(self, tokens: Tensor, source: Tensor) -> Tensor:
        """tokens (B, N, W), source (B, L, C) -> (B, N, W)."""
        projected = self.to_q(tokens), self.to_k(source), self.to_v(source)
        q, k, v = (x.unflatten(-1, (self.heads, -1)) for x in projected)
        return self.to_out[0](attention(q, k, v).flatten(-2))


class FeedForward(nn.Module):
    """Linear, one half gated by the other (GEGLU; Shazeer 2020), Linear."""

    def __init__(self, width: int, ratio: int = 4):
        super().__init__()
        gate = nn.Module()
        gate.proj = nn.Linear(width, 2 * ratio * width)
        # dropout in training, which counts in the names
        self.net = nn.ModuleList([gate, nn.Identity(), nn.Linear(ratio * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        value, gate = self.net[0].proj(tokens).chunk(2, dim=-1)
        return self.net[2](F.gelu(gate).mul_(value))
