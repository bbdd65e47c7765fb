"""Attention: one door, one plain twin, and the form for rows in groups of any length.

B batch, L tokens, T rows of all groups, H heads, D width of a head, W groups of a bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from onelook.nn.gpu_attention import Ragged, gpu_attention, is_for_flash

# A bucket pads its groups to the longest of them; one shorter than this share opens the next
# bucket. Our choice: little is padded in vain, and there are few buckets.
SHORTEST_IN_BUCKET = 0.85
SCORES_BYTES = 4 * 2**20  # of one product of queries and keys on a CPU


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, Lq, H, D), k and v (B, Lk, H, D) -> (B, Lq, H, D): softmax(q k^T / sqrt(D)) v."""
    if is_for_flash(q) and (dense := gpu_attention().dense):
        return dense(q, k, v)
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":
        return _by_products(q, k, v)
    return _sdpa(q, k, v, None)


def attention_plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same written out, in float32: defines what `attention` must give."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k.float()) * q.shape[-1] ** -0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v.float()).to(q.dtype)


@dataclass(frozen=True)
class Bucket:
    """Groups of similar length. rows (W, L): row of each member, groups padded to L members by
    repeating a row; real (W, 1, 1, L) bool: which members are not padding, None when all are."""

    rows: Tensor
    real: Tensor | None


class Groups:
    """A division of T rows into groups; each row attends to all rows of its own group."""

    def __init__(self, group: Tensor):
        """group (T,) int64: number of each row's group; any numbers, in any order."""
        self._order = torch.argsort(group, stable=True)  # rows, group by group
        self._lengths = torch.unique_consecutive(group[self._order], return_counts=True)[1]
        self.count = len(self._lengths)
        self.is_one = self.count == 1

    @property
    def buckets(self) -> list[Bucket]:
        """All groups, those of similar length together."""
        return self._packed[0]

    @cached_property
    def _packed(self) -> tuple[list[Bucket], Tensor]:
        """The buckets, and for each row its place in their outputs put in a row."""
        order, lengths = self._order, self._lengths
        buckets: list[Bucket] = []
        seats = torch.empty_like(order)
        starts = lengths.cumsum(0) - lengths
        by_length = torch.argsort(lengths, stable=True, descending=True)
        sizes = lengths[by_length].tolist()
        first, taken = 0, 0
        while first < self.count:
            longest = sizes[first]
            last = first + 1
            while last < self.count and sizes[last] >= SHORTEST_IN_BUCKET * longest:
                last += 1
            members = by_length[first:last]
            offset = torch.arange(longest, device=order.device)
            inside = offset < lengths[members, None]  # (W, L)
            rows = order[starts[members, None] + offset.minimum(lengths[members, None] - 1)]
            seat = taken + torch.arange(rows.numel(), device=order.device).view_as(rows)
            seats[rows[inside]] = seat[inside]
            is_padded = sizes[last - 1] < longest
            buckets.append(Bucket(rows, inside[:, None, None] if is_padded else None))
            first, taken = last, taken + rows.numel()
        return buckets, seats

    @cached_property
    def _in_a_row(self) -> tuple[Tensor, Tensor, int]:
        """For each row its place group by group; where groups start (G + 1,) int32; the longest."""
        places = torch.empty_like(self._order)
        places[self._order] = torch.arange(len(places), device=places.device)
        starts = F.pad(self._lengths.cumsum(0), (1, 0)).int()
        return places, starts, int(self._lengths.max())

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (T, H, D) -> (T, H, D): on a GPU in one call, elsewhere one per bucket."""
        if self.is_one:
            return attention(q[None], k[None], v[None])[0]
        if is_for_flash(q) and (ragged := gpu_attention().ragged):
            return self.attend_by(ragged, q, k, v)
        buckets, seats = self._packed
        parts = []
        for bucket in buckets:
            rows, real = bucket.rows, bucket.real
            members = q[rows], k[rows], v[rows]  # (W, L, H, D) each
            parts.append(attention(*members) if real is None else _sdpa(*members, real))
        return torch.cat([part.flatten(0, 1) for part in parts])[seats]

    def attend_by(self, ragged: Ragged, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same in one call, by a function that takes all groups one after the other."""
        places, starts, longest = self._in_a_row
        rows = (t.index_select(0, self._order) for t in (q, k, v))
        return ragged(*rows, starts, longest).index_select(0, places)


def attend_in_groups_plain(q: Tensor, k: Tensor, v: Tensor, group: Tensor) -> Tensor:
    """The plain twin of `Groups(group).attend`: one group after the other."""
    out = torch.empty_like(q)
    for number in group.unique():
        rows = (group == number).nonzero()[:, 0]
        out[rows] = attention_plain(q[rows][None], k[rows][None], v[rows][None])[0]
    return out


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Torch's own; it wants heads before tokens. mask (B, 1, 1, Lk): keys that count.

    A CPU gains nothing from half precision here, so it computes in float32.
    """
    kind = q.dtype
    if q.device.type == "cpu":
        q, k, v = q.float(), k.float(), v.float()
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, L, D)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).to(kind)


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two matrix products per head and some queries, so few that their scores stay in cache.

    For bfloat16 on a CPU: its matrix products are several times as fast there as torch's fused
    attention, which computes in float32 within. Scores are rounded to bfloat16.
    """
    out = torch.empty_like(q)
    step = max(16, SCORES_BYTES // (k.shape[1] * k.element_size()))
    for b in range(len(q)):
        for head in range(q.shape[2]):
            keys, values = k[b, :, head], v[b, :, head]  # (Lk, D)
            queries = q[b, :, head] * q.shape[-1] ** -0.5
            for first in range(0, q.shape[1], step):
                rows = slice(first, first + step)
                weights = (queries[rows] @ keys.T).softmax(-1)
                out[b, rows, head] = weights @ values
    return out
