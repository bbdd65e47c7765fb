"""The REST service with a worker that misbehaves on demand and a clock that can be set.

    python faulty_service.py FAULT_FILE CLOCK_FILE PORT

FAULT_FILE holds what is to happen in the next jobs: `oom:STAGE`, `unexpected:STAGE`, `die:STAGE`,
`hang:STAGE` (deaf to signals), `slow:STAGE` (seconds long, but listening), `babble:STAGE` (says it
is done and not what it made), `frugal` (cheap settings for all) or nothing. CLOCK_FILE holds
seconds that the clock on the wall is wrong by.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

WORKER = [sys.executable, str(Path(__file__).parent / "faulty_worker.py")]


def set_the_clock_by(clock: Path) -> None:
    """Let everything in this process believe the file about the time of day."""
    true_time = time.time

    def wrong_time() -> float:
        return true_time() + float(clock.read_text() or 0)

    time.time = wrong_time


def main(fault: str, clock: str, port: str) -> None:
    import uvicorn

    from onelook.service.app import create_app
    from onelook.service.settings import read_settings

    set_the_clock_by(Path(clock))
    app = create_app(read_settings(os.environ), [*WORKER, fault])
    uvicorn.run(app, port=int(port), log_config=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
