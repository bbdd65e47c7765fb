"""Whether the Cog server in this container is alive: `python -m onelook.healthcheck`.

Cog answers `/health-check` with 200 whatever its state is; the state stands in the body. A server
that lost its worker, or whose setup failed, stays up in that state for ever and refuses every
request, so only a new container helps. That is what `--end` asks for: where the state is a dead
one, it ends process 1, and the restart policy does the rest.

Standard library only, and quick to start: it runs every few seconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys

WORKING = ("READY", "BUSY")
STARTING = ("STARTING",)
DEAD = ("UNHEALTHY", "SETUP_FAILED", "DEFUNCT")
NO_ANSWER = "NO ANSWER"


def read_status(port: int, seconds: float = 5.0) -> str:
    """The state that the server on this machine says it is in; NO_ANSWER where it says nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", "/health-check")
        return str(json.loads(connection.getresponse().read())["status"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return NO_ANSWER
    finally:
        connection.close()


def main(argv: list[str] | None = None) -> int:
    """0 when the server is well, 1 when not; prints its state, which Docker keeps in its log."""
    parser = argparse.ArgumentParser(prog="python -m onelook.healthcheck", description=__doc__)
    parser.add_argument(
        "--alive", action="store_true", help="a server that is still starting is well, too"
    )
    parser.add_argument(
        "--end", action="store_true", help="end the container where its server is dead"
    )
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "5000")))
    parser.add_argument("--process", type=int, default=1, help="the process to end (default: 1)")
    arguments = parser.parse_args(argv)
    status = read_status(arguments.port)
    print(status)
    if status in DEAD and arguments.end:
        os.kill(arguments.process, signal.SIGTERM)
    return 0 if status in WORKING + STARTING * arguments.alive else 1


if __name__ == "__main__":
    sys.exit(main())
