"""What a run tells while it works and leaves behind: progress, seconds per step, notes, figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Figure = bool | int | float | str


class Report:
    """Collects seconds per step, figures and notes; passes progress on.

    `on_progress(step, fraction)` is called when a step starts (0.0), as it advances, and when it is
    done (1.0). `on_note(sentence)` is called for every note as it comes.
    """

    def __init__(
        self,
        on_progress: Callable[[str, float], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ):
        self.seconds: dict[str, float] = {}
        self.figures: dict[str, Figure] = {}
        self.notes: list[str] = []
        self._plan: dict[str, float] = {}
        self._on_progress = on_progress
        self._on_note = on_note
        self._step = ""

    def plan(self, shares: dict[str, float]) -> None:
        """Say which steps will come, and the share of the time each is expected to take."""
        total = sum(shares.values())
        self._plan = {name: share / total for name, share in shares.items()}

    @property
    def current_step(self) -> str:
        """The step in progress, or the last one."""
        return self._step

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; a repeated name adds up. Steps do not nest."""
        self._step = name
        self.advance(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.advance(1.0)

    def advance(self, fraction: float) -> None:
        """The step in progress is this far: 0..1."""
        if self._on_progress:
            self._on_progress(self._step, fraction)

    def overall(self, fraction: float) -> float:
        """How far the whole plan is, 0..1, when the step in progress is this far."""
        done = 0.0
        for name, share in self._plan.items():
            if name == self._step:
                return done + share * fraction
            done += share
        return fraction if not self._plan else 0.0

    def note(self, sentence: str) -> None:
        """Say something the user should know: a choice made, a fall-back taken."""
        self.notes.append(sentence)
        if self._on_note:
            self._on_note(sentence)
