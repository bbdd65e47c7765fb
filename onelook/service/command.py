"""`onelook serve`: the REST service of one machine."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import signal

from onelook.errors import OptionError
from onelook.service.settings import Settings, read_settings, variable_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `onelook serve`, one for each setting."""
    for setting in dataclasses.fields(Settings):
        if not setting.metadata["flag"]:
            continue
        default, kind = setting.default, type(setting.default)
        shown = "off" if default is False else default or "none"
        help = f"{setting.metadata['help']} [{variable_of(setting)}] (default: {shown})"
        flag = f"--{setting.name}"
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help)
        else:
            metavar = "LIST" if kind is tuple else kind.__name__.upper()
            parser.add_argument(flag, metavar=metavar, help=help.replace("%", "%%"))


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code.

    Raises OptionError for a wrong setting and where the libraries of the extra are not installed.
    """
    settings = read_settings(os.environ, vars(arguments))
    absent = [
        package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None
    ]
    if absent:
        raise OptionError(
            f"onelook serve needs libraries that are not installed: {', '.join(absent)};"
            " get them with: pip install 'onelook[serve]'"
        )
    import uvicorn

    from onelook.service.app import create_app

    app = create_app(settings)
    # uvicorn raises the signal that ended it once more when all is done
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=None, access_log=False,
        timeout_graceful_shutdown=_CONNECTION_SECONDS,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else 1


_CONNECTION_SECONDS = 5  # for downloads in progress, once every job is over
_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "sse_starlette": "sse-starlette",
    "prometheus_client": "prometheus-client",
    "fastapi_offline": "fastapi-offline",
}
