"""One run in a thread of its own, which can be stopped.

Python has no way to end a thread; it has one to raise an exception in it, between two steps of the
interpreter. That is how Cog cancels a prediction, too, so the engine is written to survive it: its
staging folder goes, its models stay. A single long call into C delays the stop to its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Stopped(BaseException):
    """Raised inside the work; not an Exception, so that nothing on its way takes it for one."""


class Run(Generic[Made]):
    """Starts `work` at once. After `wait` said True, `made` or `error` or neither (stopped)."""

    def __init__(self, work: Callable[[], Made]):
        self.made: Made | None = None
        self.error: Exception | None = None
        self._stopping = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most so long; whether it is over."""
        self._thread.join(seconds)
        return self.is_over

    def stop(self) -> None:
        """Have the work end soon; at most once, and harmless when it is over."""
        with self._stopping:
            if self._stopped or self.is_over:
                return
            self._stopped = True
            thread = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(Stopped))

    def _run(self, work: Callable[[], Made]) -> None:
        with contextlib.suppress(Stopped):
            try:
                self.made = work()
            except Exception as error:
                self.error = error
