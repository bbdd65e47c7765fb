"""The stages on Ray Data: readers and writers are tasks, makers a pool of actors that load once."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from onelook.batch.sources import Item
from onelook.batch.stages import Job, Make, Row, export, new_row, read_picture, result_row
from onelook.errors import OptionError

LIGHT_CPUS = 0.25  # of a reader or writer: they wait more than they work
MAKER_CPUS = 0.5  # so that a machine with one CPU still has room for readers and writers
MOST_BLOCKS = 10_000  # up to here a picture each, so that a worker that dies costs one picture
_DIED = (
    "the worker died on this picture, perhaps for want of memory; try it with smaller settings or"
    " fewer engines"
)


def require_ray() -> None:
    """Raises OptionError when the extra is not installed."""
    missing = [name for name in ("ray", "pyarrow") if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(
            f"onelook batch needs {' and '.join(missing)}; get it with:"
            " pip install 'onelook[batch]'"
        )


def start_ray(address: str | None) -> None:
    """Join the cluster at `address`, or start Ray on this machine; nothing is reported to anybody.

    Raises OptionError when the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    if address:
        _refuse_silence(address)
    for name in ("ray", "ray.data"):  # what matters of it stands in the rows
        logging.getLogger(name).setLevel(logging.CRITICAL)
    start = {"address": address} if address else {"include_dashboard": False}
    try:
        ray.init(**start, logging_level="error", ignore_reinit_error=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OptionError(
            "the Ray cluster at that address does not answer, or refuses this machine; is"
            " `ray start --head` running there, and its token here (RAY_AUTH_MODE=token)?"
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # a dead worker costs its picture, not the batch


def _refuse_silence(address: str) -> None:
    """Raises OptionError where nobody listens: Ray itself would try for minutes."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.hostname is None or place.port is None:
        return  # "auto", say
    try:
        socket.create_connection((place.hostname, place.port), timeout=10).close()
    except OSError as error:
        raise OptionError(
            f"no Ray cluster listens at {place.hostname} on port {place.port}"
            f" ({error.strerror or error})"
        ) from error


def run_pipeline(
    items: Sequence[Item], job: Job, engines: int | None = None, make: type = Make
) -> Iterator[Row]:
    """One result row per item, as they come; Ray must have been started.

    engines: processes that hold a model; None is one per GPU, or one where there is none.
    make: the class of these processes.
    """
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0)) if job.device != "cpu" else 0
    count = engines or max(gpus, 1)
    rows = [new_row(item, job) for item in items]
    blocks = min(len(rows), MOST_BLOCKS)
    pool = ray.data.ActorPoolStrategy(size=min(count, blocks), max_tasks_in_flight_per_actor=1)
    with warnings.catch_warnings():
        # `ray_remote_args_fn` goes with Ray 2.64 and has no successor yet: the extra stays below.
        warnings.simplefilter("ignore", DeprecationWarning)
        made = (
            ray.data.from_items(rows, override_num_blocks=blocks)
            .map(read_picture, fn_args=[job], num_cpus=LIGHT_CPUS)
            .map(
                make,
                fn_constructor_args=[job],
                compute=pool,
                num_cpus=MAKER_CPUS,
                ray_remote_args_fn=_replaceable,
                **_accelerator(gpus, count),
            )
            .map(export, fn_args=[job], num_cpus=LIGHT_CPUS)
        )
    missing = {row["name"]: row for row in rows}
    for row in made.iter_rows():
        missing.pop(row["name"], None)
        yield row
    for row in missing.values():
        yield result_row(row, _DIED)


def _accelerator(gpus: int, engines: int) -> dict[str, Any]:
    """More engines than GPUs share them, each GPU as many as it takes."""
    return {"num_gpus": 1 / math.ceil(engines / gpus)} if gpus else {}


def _replaceable() -> dict[str, Any]:
    """A maker that died is replaced; its picture is not tried again, or it would kill for ever."""
    return {"max_restarts": -1, "max_task_retries": 0}
