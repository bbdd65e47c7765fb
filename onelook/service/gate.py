"""The gate: every picture is opened once in a small process of its own before it may wait.

A picture that cannot be used is refused at once, and one that makes a decoder crash, hang or ask
for much memory takes this process with it, not a worker with its weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from onelook.errors import PictureError
from onelook.service.child import Channel, Child

SECONDS = 4.0  # for one picture; 50 megapixels of AVIF take about two
_ADDRESS_SPACE = 3 * 2**30  # libraries reserve far more than they use
COMMAND = (sys.executable, "-m", "onelook.service.gate")
_HARD_TO_OPEN = (
    "The picture takes too long or too much memory to open; save it again as an ordinary JPEG or"
    " PNG."
)


class Gate:
    """Asks the process, one picture at a time, and starts it anew when it has ended."""

    def __init__(self, command: Sequence[str] = COMMAND):
        self._command = command
        self._one_at_a_time = asyncio.Lock()
        self._child: Child | None = None

    async def check(self, picture: Path) -> None:
        """Raises PictureError when the picture cannot be used."""
        async with self._one_at_a_time:
            child = await self.open()
            try:
                child.send({"picture": str(picture)})
                answer = await asyncio.wait_for(child.receive(), SECONDS)
            except BaseException as error:  # of a client that has gone, too: its answer is unread
                await self.close()
                if isinstance(error, TimeoutError):
                    raise PictureError(_HARD_TO_OPEN) from None
                raise
            if answer is None:
                await self.close()
                raise PictureError(_HARD_TO_OPEN)
            if answer["event"] == "refused":
                raise PictureError(answer["sentence"])

    async def open(self) -> Child:
        """The process, started and ready."""
        if self._child is None:
            self._child = await Child.start(self._command)
            await self._child.receive()
        return self._child

    async def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            await child.end()


def main() -> None:
    """The process: a message for each picture, answered with "fine" or "refused"."""
    with contextlib.suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    channel = Channel()
    from onelook.foreground.decode import verify_picture

    channel.send("ready")
    for message in channel.messages():
        try:
            verify_picture(Path(message["picture"]))
        except PictureError as error:
            channel.send("refused", sentence=str(error))
        else:
            channel.send("fine")


if __name__ == "__main__":
    main()
