"""Decoder of a structured latent: voxels and features at 16 times its resolution.

A level's features are let go as the next one's are made, and of the finest level's only the output
is ever kept. N voxels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from onelook.nn.inner_type import inner_type
from onelook.nn.norms import layer_norm
from onelook.nn.subdivision import Subdivision
from onelook.nn.voxels import SparseTensor, Voxels
from trellis2_backend.config import DecoderConfig
from trellis2_backend.sparse_blocks import ConvNeXtBlock, Finish, UpBlock

FINAL_EPS = 1e-5


@dataclass(frozen=True)
class Decoded:
    """x (N', C) on the finest voxels; of each doubling the voxels, and the logits (N, 8) where the
    decoder found them itself."""

    x: SparseTensor
    subdivisions: list[Subdivision]
    logits: list[Tensor]


class SparseUnetVaeDecoder(nn.Module):
    """Latent (N, C) -> features (N', C') on finer voxels, found or given."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        widths = config.model_channels
        self.from_latent = nn.Linear(config.latent_channels, widths[0])
        self.blocks = nn.ModuleList()
        for count, (width, finer) in zip(config.num_blocks, pairwise((*widths, None)), strict=True):
            stage = nn.ModuleList(ConvNeXtBlock(width) for _ in range(count))
            if finer is not None:
                stage.append(UpBlock(width, finer, config.pred_subdiv))
            self.blocks.append(stage)
        self.output_layer = nn.Linear(widths[-1], config.out_channels)

    def forward(self, x: SparseTensor, given: Sequence[Subdivision] = ()) -> SparseTensor:
        """x (N, C) float32, the latent as decoders expect it -> (N', C') float32.

        given: the voxels of each doubling, for a decoder that does not find them itself.
        Raises SurfaceError when no voxel is left.
        """
        return self.decode(x, given).x

    def decode(self, x: SparseTensor, given: Sequence[Subdivision] = ()) -> Decoded:
        """The same with what was found on the way."""
        kind = x.feats.dtype

        def output(rows: Tensor) -> Tensor:
            return self.output_layer(layer_norm(rows.to(kind), FINAL_EPS))

        if self.config.pred_subdiv == bool(given):
            raise ValueError("the voxels of each doubling are either found or given")
        return self._run(x, given, output, self.config.doublings)

    def upsample(self, x: SparseTensor, doublings: int) -> Voxels:
        """The voxels that the latent x (N, C) float32 leads to after so many doublings."""
        return self._run(x, (), None, doublings).x.voxels

    def _run(
        self, x: SparseTensor, given: Sequence[Subdivision], finish: Finish | None, doublings: int
    ) -> Decoded:
        """finish: what is made of the last level's rows, None: nothing, only its voxels count."""
        finest = self.blocks[-1] if finish else ()
        h = x.with_feats(self.from_latent(x.feats).to(inner_type(self.blocks)))
        subdivisions, logits = [], []
        for level in range(doublings):
            *plain, up = self.blocks[level]
            for block in plain:
                h = block(h)
            is_last = level + 1 == doublings and not len(finest)
            raised = up(h, given[level] if given else None, finish if is_last else _keep)
            h = raised.x
            subdivisions.append(raised.subdivision)
            if raised.logits is not None:
                logits.append(raised.logits)
        for block in finest:
            h = block(h)
        if len(finest):
            h = h.with_feats(finish(h.feats))
        return Decoded(h, subdivisions, logits)


def _keep(rows: Tensor) -> Tensor:
    return rows
