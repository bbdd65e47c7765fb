"""The triplane transformer: learned tokens of three planes read the views' tokens.

Hong et al., LRM: Large Reconstruction Model for Single Image to 3D, ICLR 2024, as InstantMesh has
it. Attention has no bias anywhere.

B objects, L tokens of the views, N = 3 * R * R tokens of the planes (plane, row, column), C
channels, R tokens along a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instantmesh_backend.config import ReconstructionConfig
from onelook.nn.attention import attention
from onelook.nn.norms import LayerNorm

BLOCK_EPS, LAST_EPS = 1e-5, 1e-6  # the original's argument for 1e-6 does not reach the blocks


class TriplaneTransformer(nn.Module):
    """Tokens of the views -> triplanes, twice as fine as the tokens."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        self.side = config.triplane_low_res
        width = config.transformer_dim
        self.pos_embed = nn.Parameter(torch.zeros(1, 3 * self.side**2, width))
        self.layers = nn.ModuleList(
            TriplaneBlock(width, config.encoder_feat_dim, config.transformer_heads)
            for _ in range(config.transformer_layers)
        )
        self.norm = LayerNorm(width, eps=LAST_EPS)
        self.deconv = nn.ConvTranspose2d(width, config.triplane_dim, kernel_size=2, stride=2)

    def forward(self, views: Tensor) -> Tensor:
        """views (B, L, C of the encoder) -> planes (B, 3, C of the planes, 2 R, 2 R)."""
        tokens = self.pos_embed.expand(len(views), -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, views)
        grid = self.norm(tokens).unflatten(1, (3, self.side, self.side))  # (B, 3, R, R, C)
        planes = self.deconv(grid.flatten(0, 1).permute(0, 3, 1, 2))
        return planes.unflatten(0, (-1, 3))


class TriplaneBlock(nn.Module):
    """Cross attention, self attention, MLP."""

    def __init__(self, width: int, view_width: int, heads: int):
        super().__init__()
        self.norm1 = LayerNorm(width, eps=BLOCK_EPS)
        self.cross_attn = CrossAttention(width, view_width, heads)
        self.norm2 = LayerNorm(width, eps=BLOCK_EPS)
        self.self_attn = SelfAttention(width, heads)
        self.norm3 = LayerNorm(width, eps=BLOCK_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Identity(),  # dropout in training, which counts in the names
            nn.Linear(4 * width, width),
        )

    def forward(self, tokens: Tensor, views: Tensor) -> Tensor:
        """tokens (B, N, C), views (B, L, C of the encoder) -> (B, N, C)."""
        tokens = tokens + self.cross_attn(self.norm1(tokens), views)
        tokens = tokens + self.self_attn(self.norm2(tokens))
        return tokens + self.mlp(self.norm3(tokens))


class CrossAttention(nn.Module):
    """Tokens read the views; the names are torch's own for keys of another width."""

    def __init__(self, width: int, view_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj_weight = nn.Parameter(torch.zeros(width, width))
        self.k_proj_weight = nn.Parameter(torch.zeros(width, view_width))
        self.v_proj_weight = nn.Parameter(torch.zeros(width, view_width))
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, views: Tensor) -> Tensor:
        """tokens (B, N, C), views (B, L, C of the encoder) -> (B, N, C)."""
        q = F.linear(tokens, self.q_proj_weight)
        k, v = F.linear(views, self.k_proj_weight), F.linear(views, self.v_proj_weight)
        q, k, v = (x.unflatten(-1, (self.heads, -1)) for x in (q, k, v))
        return self.out_proj(attention(q, k, v).flatten(-2))


class SelfAttention(nn.Module):
    """Tokens of the planes read each other."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, N, C) -> (B, N, C)."""
        qkv = F.linear(tokens, self.in_proj_weight).unflatten(-1, (3, self.heads, -1))
        return self.out_proj(attention(*qkv.unbind(-3)).flatten(-2))
