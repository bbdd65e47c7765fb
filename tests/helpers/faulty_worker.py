"""The real worker process, in which a stage goes wrong as a file says; see faulty_service.py."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from onelook.engine import Engine
from onelook.report import Report
from onelook.service import worker
from onelook.service.child import Channel

channels: list[Channel] = []


def break_stages(fault: Path) -> None:
    sound_step = Report.step

    @contextmanager
    def step(report: Report, name: str):
        with sound_step(report, name):
            kind, _, stage = fault.read_text().partition(":")
            if stage == name:
                misbehave(kind)
            yield

    Report.step = step


def remember_channels() -> None:
    sound_start = Channel.__init__

    def start(channel: Channel) -> None:
        sound_start(channel)
        channels.append(channel)

    Channel.__init__ = start


def be_frugal(fault: Path) -> None:
    """`frugal`: every job is done with settings that take little time, whatever it asks for."""
    sound_generate = Engine.generate
    cheap = {
        "decimation_target": 500, "texture_size": 256, "video_size": 256, "quality": "custom",
        "generate_video": False,
    }  # fmt: skip

    def generate(engine: Engine, picture, options, *rest):
        if fault.read_text() == "frugal":
            options = replace(options, **cheap)
        return sound_generate(engine, picture, options, *rest)

    Engine.generate = generate


def misbehave(kind: str) -> None:
    if kind == "oom":
        raise MemoryError
    if kind == "unexpected":
        raise RuntimeError("/secret/path/of/the/machine")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "babble":
        channels[0]._out.write(b'{"event": "done"}\n')
    if kind == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    if kind in ("hang", "slow"):
        time.sleep(60)


if __name__ == "__main__":
    remember_channels()
    break_stages(Path(sys.argv[1]))
    be_frugal(Path(sys.argv[1]))
    worker.main(*sys.argv[2:])
