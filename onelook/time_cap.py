"""A limit on how long a step may take, asked where long work passes by.

    with time_cap(300):
        unwrap(...)

Work that may take long calls `require_time` in its loops; every kernel launch does. Without a cap
around it that costs nothing. A cap holds for the thread that set it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from onelook.report import Report

Made = TypeVar("Made")
STEP_SECONDS = 300.0
_end: ContextVar[float | None] = ContextVar("end", default=None)  # of time.monotonic()


class TimeCapReached(Exception):
    """The step in progress has used up its time; whoever set the cap has something simpler."""


@contextmanager
def time_cap(seconds: float) -> Iterator[None]:
    """Let `require_time` raise TimeCapReached once so many seconds have passed."""
    token = _end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(token)


def require_time() -> None:
    """Raise TimeCapReached where the cap around the caller is over."""
    end = _end.get()
    if end is not None and time.monotonic() > end:
        raise TimeCapReached


class Capped:
    """Does a step of `report`, or something plainer where it takes longer than `seconds`."""

    def __init__(self, report: Report, seconds: float):
        self._report, self._seconds = report, seconds

    def __call__(
        self, step: Callable[[], Made], instead: Callable[[], Made], consequence: str
    ) -> Made:
        """What `step` makes, else what `instead` makes, without a cap; then `consequence` is said
        in a note and the step's name joins the figure "fallbacks"."""
        try:
            with time_cap(self._seconds):
                return step()
        except TimeCapReached:
            name, figures = self._report.current_step, self._report.figures
            self._report.note(f"{name} took longer than {self._seconds:g} s: {consequence}")
            figures["fallbacks"] = ", ".join(filter(None, [figures.get("fallbacks"), name]))
        return instead()
