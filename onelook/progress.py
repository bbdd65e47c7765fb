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
    title = f"{label}: " if label else ""
    bar = tqdm(
        total=1.0,
        disable=quiet,
        file=sys.stderr,
        bar_format="{desc}{percentage:3.0f}%|{bar:24}| [{elapsed}]",
        mininterval=0.5,
    )

    def on_progress(step: str, fraction: float) -> None:
        bar.set_description_str(f"{title}{step:<12}", refresh=fraction == 0)
        bar.update(report.overall(fraction) - bar.n)

    def on_note(sentence: str) -> None:
        if not quiet:
            tqdm.write(title + sentence, file=sys.stderr)

    report = Report(on_progress, on_note)
    try:
        yield report
    finally:
        bar.close()
