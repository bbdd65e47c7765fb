"""What the operator of the service may choose, once: environment, command line, defaults.

Every setting has one environment variable and one flag of `onelook serve`, which wins. Reading them
costs nothing and starts nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onelook.errors import OptionError

_NONE: Mapping[str, Any] = {}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def _setting(
    default: Any, help: str, minimum: float = 0, variable: str = "", flag: bool = True
) -> Any:
    metadata = {"help": help, "minimum": minimum, "variable": variable, "flag": flag}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The service's settings; times in seconds."""

    host: str = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 is every one of the machine.")
    port: int = _setting(8000, "Port to listen on; 0 takes a free one.")
    model: str = _setting("auto", "Model of requests that leave `model` at auto.")
    weights: str = _setting(
        "",
        "Folder or owner/repository with another checkpoint for the model, in the same layout; the"
        " service then runs that model only.",
    )
    device: str = _setting(
        "auto", "auto, cpu or cuda:N; several, with commas between, get one worker process each."
    )
    vram: str = _setting("auto", "Gigabytes of GPU memory networks may use.", variable="VRAM")
    queue: int = _setting(8, "Jobs that may wait; more are answered 429 with Retry-After.")
    ttl: float = _setting(3600.0, "How long a finished job and its files are kept.", 1)
    quota_gb: float = _setting(10.0, "Disk that finished jobs may take; the oldest go first.")
    upload_mb: float = _setting(32.0, "Largest request body, in MiB; more is answered 413.", 0.001)
    job_seconds: float = _setting(1800.0, "Longest time a job may run.", 1)
    drain_seconds: float = _setting(
        60.0, "How long accepted jobs may go on after SIGTERM, before the service ends."
    )
    storage: str = _setting("", "Folder for the jobs' files; default: the system's temporary one.")
    api_keys: tuple[str, ...] = _setting(
        (), "Keys that clients must send, with commas between; none: no key is asked.", flag=False
    )
    api_keys_file: str = _setting("", "File with one key per line, added to the keys above.")
    cors_origins: tuple[str, ...] = _setting(
        (), "Web origins whose pages may call the service, with commas between; * is every one."
    )
    url_inputs: bool = _setting(
        False, "Also take the picture as image_url: https and public addresses only."
    )
    worker_output: bool = _setting(
        False, "Pass on what worker processes write to stderr; it may hold paths of this machine."
    )

    def __post_init__(self) -> None:
        if self.weights and self.model == "auto":
            raise OptionError("weights were named for one model, so name the model, too")

    @property
    def devices(self) -> tuple[str, ...]:
        return _split(self.device) or ("auto",)

    @property
    def upload_bytes(self) -> int:
        return int(self.upload_mb * 2**20)

    @property
    def quota_bytes(self) -> int:
        return int(self.quota_gb * 1e9)

    def all_api_keys(self) -> tuple[str, ...]:
        """Keys of the setting and of the file. Raises OptionError when the file cannot be read."""
        if not self.api_keys_file:
            return self.api_keys
        try:
            lines = Path(self.api_keys_file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError("the file of api_keys_file cannot be read as text") from error
        keys = tuple(line.strip() for line in lines if line.strip())
        if not keys:
            raise OptionError("the file of api_keys_file holds no key")
        return self.api_keys + keys


def variable_of(setting: dataclasses.Field) -> str:
    """The environment variable of a setting."""
    named = setting.metadata["variable"]
    return f"ONELOOK_{named}" if named else f"ONELOOK_SERVE_{setting.name.upper()}"


def read_settings(environment: Mapping[str, str], flags: Mapping[str, Any] = _NONE) -> Settings:
    """Settings from the environment; flags that are not None win.

    Raises OptionError naming the setting, what came and what was expected.
    """
    values = {}
    for setting in dataclasses.fields(Settings):
        name = setting.name
        if flags.get(name) is not None:
            values[name] = _read(setting, f"--{name}", flags[name])
        elif environment.get(variable_of(setting)):
            variable = variable_of(setting)
            values[name] = _read(setting, variable, environment[variable])
    return Settings(**values)


def _read(setting: dataclasses.Field, source: str, value: Any) -> Any:
    kind, text = type(setting.default), str(value).strip()
    if kind is str:
        return text
    if kind is tuple:
        return _split(text)
    if kind is bool:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise OptionError(f"{source} must be true or false, got {text!r}")
    minimum = setting.metadata["minimum"]
    noun = "a whole number" if kind is int else "a number"
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not minimum <= number < float("inf"):
        raise OptionError(f"{source} must be {noun} of at least {minimum:g}, got {text!r}")
    return number


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def settings_table() -> str:
    """The settings as a Markdown table; docs/service.md holds a copy that a test keeps equal."""
    lines = ["| flag | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in dataclasses.fields(Settings):
        flag = f"`--{setting.name}`" if setting.metadata["flag"] else ""
        default = str(setting.default).lower() if setting.default not in ("", ()) else ""
        meaning = setting.metadata["help"]
        lines.append(f"| {flag} | `{variable_of(setting)}` | {default} | {meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_table())
