"""Decide what sits on the device during each stage of a prediction: arithmetic on bytes, no torch.

Three levels, tried in this order:

    all      every network the backend has stays on the device between predictions
    stage    a network is there for its stages; the next stage's are copied while this one computes.
             A stage whose networks exceed the budget streams the blocks of the largest, and keeps
             as many of them as fit
    block    the least possible: every network that can be streamed is, nothing is fetched early

The budget covers weights and what a stage computes with (`Stage.working_bytes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from onelook.errors import OptionError

# Left free under vram "auto": the libraries' own workspaces (cuBLAS, cuDNN, warp) and the gaps
# between allocations. Our choice; too little costs a retry, too much a copy that could have stayed.
HEADROOM_BYTES = 512 * 2**20
HEADROOM_SHARE = 0.05


class Level(StrEnum):
    """How much stays on the device; from most to least."""

    ALL = "all"
    STAGE = "stage"
    BLOCK = "block"

    @property
    def smaller(self) -> Level | None:
        return {Level.ALL: Level.STAGE, Level.STAGE: Level.BLOCK}.get(self)


@dataclass(frozen=True)
class Stage:
    """One step of a backend: which networks it needs on the device.

    working_bytes: device memory that it computes with besides the weights, as measured by
    `residency.STAGE.peak_gb` less the weights; 0 where unknown.
    """

    name: str
    networks: tuple[str, ...]
    working_bytes: int = 0


@dataclass(frozen=True)
class Size:
    """Bytes of a network on the device: `blocks` can be streamed one by one, `rest` cannot."""

    rest: int
    blocks: tuple[int, ...] = ()

    @property
    def whole(self) -> int:
        return self.rest + sum(self.blocks)

    def streamed(self, leading: int) -> int:
        """Bytes when the first `leading` blocks stay and two places serve all others in turn."""
        turning = self.blocks[leading:]
        places = min(2, len(turning)) * max(turning, default=0)
        return self.rest + sum(self.blocks[:leading]) + places

    @property
    def least(self) -> int:
        return min(self.whole, self.streamed(0))


@dataclass(frozen=True)
class Step:
    """One stage of a prediction, decided.

    whole: networks of the stage that are on the device entirely. streamed: network -> how many of
    its first blocks stay, the others come in turn. kept: networks of earlier and later stages that
    stay meanwhile. prefetched: networks of the next stage copied during this one. bytes: weights on
    the device and working memory, at most.
    """

    stage: str
    whole: tuple[str, ...]
    streamed: Mapping[str, int]
    kept: tuple[str, ...]
    prefetched: tuple[str, ...]
    bytes: int

    @property
    def present(self) -> set[str]:
        """Networks that are wholly on the device when the stage begins."""
        return {*self.whole, *self.kept}


def parse_vram(value: str | float) -> int | None:
    """The `vram` option in bytes: gigabytes (10^9) as a number or text, None for "auto".

    Raises OptionError for anything else.
    """
    text = str(value).strip().lower()
    if text == "auto":
        return None
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if isinstance(value, bool) or not 0 < gigabytes < 1e6:
        raise OptionError(f"vram must be auto or a number of gigabytes above 0, got {value!r}")
    return round(gigabytes * 1e9)


def usable_bytes(vram: int | None, free: int, total: int) -> int:
    """The budget: what `vram` allows, and never more than is free. Bytes.

    free: unused memory of the device together with what this manager's own copies hold.
    """
    if vram is not None:
        return min(vram, free)
    return max(0, free - max(HEADROOM_BYTES, int(HEADROOM_SHARE * total)))


def largest_level(sizes: Mapping[str, Size], stages: Sequence[Stage], budget: int) -> Level:
    """ALL where every network fits beside the hungriest stage, else STAGE."""
    weights = sum(size.whole for size in sizes.values())
    working = max((stage.working_bytes for stage in stages), default=0)
    return Level.ALL if weights + working <= budget else Level.STAGE


def plan_steps(
    level: Level, sizes: Mapping[str, Size], stages: Sequence[Stage], budget: int
) -> list[Step]:
    """What is on the device during each of `stages`, which follow one another."""
    drafts = [_draft(level, sizes, stage, budget) for stage in stages]
    if level is Level.ALL:
        _prefetch(drafts, sizes, None)
        weights = sum(size.whole for size in sizes.values())
        for draft, stage in zip(drafts, stages, strict=True):
            draft.bytes = weights + stage.working_bytes
    else:
        room = 0 if level is Level.BLOCK else budget
        _keep(drafts, sizes, room)
        _prefetch(drafts, sizes, room)
    return [
        Step(d.stage, d.whole, d.streamed, tuple(d.kept), tuple(d.prefetched), d.bytes)
        for d in drafts
    ]


@dataclass
class _Draft:
    stage: str
    whole: tuple[str, ...]
    streamed: dict[str, int]
    bytes: int
    kept: list[str] = field(default_factory=list)
    prefetched: list[str] = field(default_factory=list)


def _draft(level: Level, sizes: Mapping[str, Size], stage: Stage, budget: int) -> _Draft:
    """The stage by itself: which of its networks are whole, which are streamed."""
    streamed = {}
    if level is Level.BLOCK:
        streamed = {n: 0 for n in stage.networks if sizes[n].least < sizes[n].whole}

    def need() -> int:
        return stage.working_bytes + sum(
            sizes[n].streamed(streamed[n]) if n in streamed else sizes[n].whole
            for n in stage.networks
        )

    if level is Level.STAGE:
        for name in sorted(stage.networks, key=lambda n: sizes[n].whole, reverse=True):
            if need() > budget and sizes[name].least < sizes[name].whole:
                streamed[name] = 0
        for name in streamed:  # what room is left keeps first blocks where they are
            for leading in range(len(sizes[name].blocks) - 1, 0, -1):
                spare = budget - need() + sizes[name].streamed(0)
                if sizes[name].streamed(leading) <= spare:
                    streamed[name] = leading
                    break
    whole = tuple(n for n in stage.networks if n not in streamed)
    return _Draft(stage.name, whole, streamed, need())


def _keep(drafts: list[_Draft], sizes: Mapping[str, Size], budget: int) -> None:
    """Let a network stay between two of its stages where the stages between have room for it."""
    for first, draft in enumerate(drafts):
        for name in draft.whole:
            later = next((i for i in range(first + 1, len(drafts)) if _uses(drafts[i], name)), None)
            if later is None or name not in drafts[later].whole:
                continue
            between = drafts[first + 1 : later]
            if all(d.bytes + sizes[name].whole <= budget for d in between):
                for other in between:
                    other.kept.append(name)
                    other.bytes += sizes[name].whole


def _uses(draft: _Draft, name: str) -> bool:
    return name in draft.whole or name in draft.streamed


def _prefetch(drafts: list[_Draft], sizes: Mapping[str, Size], budget: int | None) -> None:
    """Copy the next stage's networks during this one where there is room; None: there always is."""
    for draft, following in zip(drafts, drafts[1:], strict=False):
        for name in following.whole:
            if _uses(draft, name) or name in draft.kept:
                continue
            if budget is None or draft.bytes + sizes[name].whole <= budget:
                draft.prefetched.append(name)
                draft.bytes += sizes[name].whole
