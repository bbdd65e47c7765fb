"""A Python module that runs as a process of its own and speaks JSON, one message a line.

The two ends: `Child` in the service, `Channel` in the process. What the process, or a library in
it, prints does not disturb the messages: its standard output becomes its standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_LONGEST_LINE = 2**20
_PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


class Child:
    """A running process; made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process):
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], show_output: bool = False) -> Child:
        """Run `command`; its stderr is passed on only when asked for."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if show_output else asyncio.subprocess.DEVNULL,
            limit=_LONGEST_LINE,
            start_new_session=True,  # Ctrl-C in a terminal is for the service alone
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: dict[str, Any]) -> None:
        """Hand over a message; lost without an error where the process has ended."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the process has ended."""
        try:
            line = await self._process.stdout.readline()
            return json.loads(line) if line.endswith(b"\n") else None
        except ValueError:  # not a message: whatever speaks there is no longer our program
            self.kill()
            return None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self, seconds: float = 3.0) -> int:
        """Let the process go: nothing more is sent, and soon it is killed. -> its exit code."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.close()
        try:
            return await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            self.kill()
            return await self._process.wait()


class Channel:
    """The process's end."""

    def __init__(self) -> None:
        _die_with_the_parent()
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        for number in (signal.SIGINT, signal.SIGTERM):  # the service decides when this one ends
            signal.signal(number, signal.SIG_IGN)

    def send(self, event: str, **fields: Any) -> None:
        try:
            self._out.write(json.dumps({"event": event, **_finite(fields)}).encode() + b"\n")
        except BrokenPipeError:
            os._exit(1)

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the service sends, until it closes the line or is gone."""
        for line in sys.stdin.buffer:
            yield json.loads(line)


def _finite(value: Any) -> Any:
    """The value with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _die_with_the_parent() -> None:
    """On Linux: no process of the service outlives it, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
