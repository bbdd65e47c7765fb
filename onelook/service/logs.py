"""Logs as one JSON object per line, with the job's id where there is one.

A log line never holds a path, a picture's name, a key or a traceback: an error is told by its class
and the places in the code it came through, as `module:line`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

_LOG = logging.getLogger("onelook.service")
_OTHERS = ("uvicorn", "uvicorn.error", "asyncio")


def log_event(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write one line; fields that are None are left out."""
    _LOG.log(level, event, extra={"fields": fields})


def set_up_logs() -> None:
    """Send the service's, uvicorn's and asyncio's log to stderr as JSON, and nothing twice."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (_LOG.name, *_OTHERS):
        logger = logging.getLogger(name)
        logger.handlers[:] = [] if name == "uvicorn.error" else [handler]  # that one passes upwards
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(logging.INFO if name != "asyncio" else logging.ERROR)
    access = logging.getLogger("uvicorn.access")  # the service logs requests itself, without query
    access.handlers[:], access.propagate = [], False


def places(trace: TracebackType | None, most: int = 12) -> list[str]:
    """Where an error came through, outermost first, as `module:line`; the last `most` of them."""
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in traceback.walk_tb(trace)
    ]
    return frames[-most:]


class JsonLines(logging.Formatter):
    """time, level, event and the fields of `log_event`; errors by class and places."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": _first_line(record.getMessage()),
        }
        fields = getattr(record, "fields", {})
        line |= {name: value for name, value in fields.items() if value is not None}
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            line["places"] = places(record.exc_info[2])
        return json.dumps(line, ensure_ascii=False, default=lambda value: type(value).__name__)


def _first_line(message: str) -> str:
    """asyncio and uvicorn put object dumps and tracebacks, with paths, into later lines."""
    return message.partition("\n")[0].replace(str(Path.cwd()), ".")
