"""Work on many rows in pieces, so that what it needs in between stays within a limit.

T rows.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

# Of what is made in between. Large enough that a GPU's matrix products lose nothing.
PIECE_BYTES = 256 * 2**20


def in_pieces(
    work: Callable[..., Tensor], *tensors: Tensor, row_bytes: int, out: Tensor | None = None
) -> Tensor:
    """`work(*tensors)`, on some rows at a time; work makes each row of its result from theirs.

    tensors (T, ...). row_bytes: what work needs in between for each row. out: where the result is
    written, which may be one of the tensors.
    """
    count, step = len(tensors[0]), max(1, PIECE_BYTES // row_bytes)
    if count <= step and out is None:
        return work(*tensors)
    for first in range(0, count, step):
        piece = work(*(rows[first : first + step] for rows in tensors))
        if out is None:
            out = piece.new_empty(count, *piece.shape[1:])
        out[first : first + step] = piece
    return out
