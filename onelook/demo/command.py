"""`onelook demo`: the demo page, made by an engine here or by a running service."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from types import FrameType

from onelook.errors import OnelookError, OptionError
from onelook.setup_arguments import add_setup_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `onelook demo`."""
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one)")
    parser.add_argument(
        "--service",
        metavar="URL",
        help="let a running `onelook serve` do the work; its key is read from ONELOOK_API_KEY",
    )
    add_setup_arguments(parser)
    parser.add_argument(
        "--max_waiting", type=int, default=16, help="visitors that may wait (default: 16)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until interrupted; returns the exit code.

    Gradio's own variables hold where no argument is given (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT,
    GRADIO_ROOT_PATH), as a Space sets them. Raises OptionError for wrong arguments and where Gradio
    is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise OptionError(
            "the demo page needs Gradio; get it with: pip install 'onelook[demo]'"
        ) from error
    from onelook.demo.makers import LocalMaker, ServiceMaker
    from onelook.demo.page import LAUNCH, build_page
    from onelook.scratch import Scratch

    if arguments.max_waiting < 1:
        raise OptionError(f"max_waiting must be at least 1, got {arguments.max_waiting}")
    logging.basicConfig(level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    if arguments.service:
        maker = ServiceMaker(arguments.service, os.environ.get("ONELOOK_API_KEY"))
    else:
        maker = LocalMaker(arguments.device, arguments.vram, arguments.weights)
        maker.warm_up()
    page = build_page(maker, Scratch().folder, arguments.max_waiting)
    where = {"server_name": arguments.host, "server_port": arguments.port}
    try:
        _, address, _ = page.launch(**where, **LAUNCH, quiet=True, prevent_thread_lock=True)
        print(f"onelook demo: {address}", flush=True)
        page.block_thread()
    except OSError as error:
        raise OptionError(
            "the demo page cannot listen there: the port is taken or the address is not this"
            " machine's; choose another with --host and --port"
        ) from error
    except KeyboardInterrupt:
        return 130
    finally:
        page.close(verbose=False)
    return 0


def main() -> int:
    """For `demo.py`: the page with its defaults."""
    parser = argparse.ArgumentParser(prog="demo.py", description="Serve the demo page.")
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except OnelookError as error:
        print(f"demo.py: error: {error}", file=sys.stderr)
        return 2


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as after Ctrl-C, so that the visitors' files go."""
    raise KeyboardInterrupt
