"""What the page shows of a run in progress: its stages, how far it is, and the notes."""

from __future__ import annotations

import html
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Stage:
    """One step of a run; `seconds` is None while it is in progress."""

    name: str
    started: float
    seconds: float | None = None


@dataclass
class Board:
    """Written by the thread that works, read by the one that shows; `wait` tells of news."""

    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    overall: float = 0.0
    _news: threading.Event = field(default_factory=threading.Event)

    def advance(self, stage: str, overall: float) -> None:
        """The run is in this stage and this far, 0..1."""
        if stage and (not self.stages or self.stages[-1].name != stage):
            self._close_stage()
            self.stages.append(Stage(stage, time.monotonic()))
        self.overall = max(self.overall, min(overall, 1.0))
        self._news.set()

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)
        self._news.set()

    def finish(self) -> None:
        """The run is over, however it ended."""
        self._close_stage()
        self._news.set()

    def wait(self, seconds: float) -> None:
        """Until something changed, at most so long."""
        self._news.wait(seconds)
        self._news.clear()

    def _close_stage(self) -> None:
        if self.stages and self.stages[-1].seconds is None:
            last = self.stages[-1]
            last.seconds = time.monotonic() - last.started


def running_html(board: Board) -> str:
    """A bar, and a line for every stage so far."""
    percent = round(100 * board.overall)
    bar = f'<div class="bar"><div style="width:{percent}%"></div></div>'
    stages = "".join(_stage_html(stage) for stage in list(board.stages))
    head = f'<p class="head">Working: {percent} %</p>'
    return f'<div class="board running">{head}{bar}<ol>{stages}</ol>{_notes_html(board)}</div>'


def finished_html(board: Board, sentence: str) -> str:
    """The sentence, with stages and notes to unfold."""
    stages = "".join(_stage_html(stage) for stage in list(board.stages))
    more = f"<details><summary>Stages</summary><ol>{stages}</ol></details>" if stages else ""
    return (
        f'<div class="board done"><p class="head">{html.escape(sentence)}</p>'
        f"{_notes_html(board)}{more}</div>"
    )


def sentence_html(sentence: str, kind: str = "plain") -> str:
    """One sentence; kind: plain or error."""
    role = ' role="alert"' if kind == "error" else ""
    return f'<div class="board {kind}"{role}><p class="head">{html.escape(sentence)}</p></div>'


def _stage_html(stage: Stage) -> str:
    if stage.seconds is None:
        return f'<li class="now">{html.escape(stage.name)} …</li>'
    return f"<li>{html.escape(stage.name)} <span>{stage.seconds:.1f} s</span></li>"


def _notes_html(board: Board) -> str:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in list(board.notes))
    return f'<ul class="notes">{notes}</ul>' if notes else ""
