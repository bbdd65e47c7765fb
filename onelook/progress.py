"""Progress on stderr: one bar per run, which terminals redraw and Cog streams into the log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from onelook.report import Report


@contextmanager
def progress_report(label: str = "", quiet: bool = False) -> Iterator[Report]:
    """A Report whose steps move a bar on stderr and whose notes are printed above it.

    The bar counts whole steps; the name of the step in progress stands beside it.
    """
    bar = tqdm(
        desc=label or None,
        total=1.0,
        disable=quiet,
        file=sys.stderr,
        bar_format="{desc}: {percentage:3.0f}%|{bar:24}| {postfix} [{elapsed}]",
        mininterval=0.2,
    )

    def on_progress(step: str, fraction: float) -> None:
        bar.set_postfix_str(step, refresh=False)
        bar.update(report.overall(fraction) - bar.n)

    def on_note(sentence: str) -> None:
        if not quiet:
            tqdm.write(f"{label}: {sentence}" if label else sentence, file=sys.stderr)

    report = Report(on_progress, on_note)
    try:
        yield report
    finally:
        bar.close()
