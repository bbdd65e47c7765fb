"""What the service takes and answers, for the code and for the OpenAPI page.

The form's fields are made from `onelook/options.py` and the addresses in the answers from the
engine's outputs, so that what comes there appears here.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from onelook.engine import MOST_VIEWS, OUTPUTS
from onelook.options import option_fields
from onelook.service.jobs import Job, State

PREFIX = "/api/v1"
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def url_field(output: str) -> str:
    """model_file -> model_url: the field of an answer that says where this output is."""
    return f"{output.removesuffix('_file')}_url"


def _outputs_model(name: str) -> type[BaseModel]:
    """A model with one address per output of the engine."""
    fields = {}
    for output in OUTPUTS:
        shown = output.removesuffix("_file").replace("_", " ")
        text = (
            f"Where to fetch the {shown}; null where there is none (yet) or it was not asked for."
        )
        fields[url_field(output)] = (str | None, Field(default=None, description=text))
    return create_model(name, **fields)


_Outputs = _outputs_model("Outputs")
_JOB_ID = "Names the job in every other request."
_EXPIRES = "When the job and its files will be removed (ISO 8601, UTC); null while it is not over."
_SEED = "Seed of this run; null as long as one is still to be drawn."
_NOTES = "What the service chose or could not do, a sentence each."


class Timings(BaseModel):
    """Seconds."""

    queued: float = Field(description="Seconds the job waited for its turn.")
    running: float = Field(description="Seconds it has run so far, or ran.")
    stages: dict[str, float] = Field(description="Seconds in each stage, when it has succeeded.")


class Completed(_Outputs):
    """A finished asset."""

    job_id: str = Field(description=_JOB_ID)
    status: Literal["completed"] = Field(description="Always completed; failures are errors.")
    message: str = Field(description="A sentence about the run.")
    model: str | None = Field(
        description="Model that made it; null where only the picture was cut out."
    )
    seed: int = Field(description="Seed of this run.")
    notes: list[str] = Field(description=_NOTES)
    timings: Timings = Field(description="How long it took.")
    metrics: dict[str, Any] = Field(description="Figures of the run: mesh, files, options as used.")
    expires_at: str = Field(description=_EXPIRES)


class JobAnswer(_Outputs):
    """A job as it stands."""

    job_id: str = Field(description=_JOB_ID)
    status: State = Field(description="queued, processing, succeeded, failed or canceled.")
    message: str = Field(description="A sentence about where it stands, or why it failed.")
    progress: float = Field(ge=0, le=100, description="How far the job is, in percent.")
    stage: str | None = Field(description="Step in progress; null while none is.")
    position: int | None = Field(
        description="Place in the queue, 1 is next; null when not waiting."
    )
    model: str | None = Field(description="Model that makes it; null while that is not known.")
    seed: int | None = Field(description=_SEED)
    notes: list[str] = Field(description=_NOTES)
    timings: Timings = Field(description="How long it took so far.")
    metrics: dict[str, Any] = Field(description="Figures of the run; empty until it has succeeded.")
    expires_at: str | None = Field(description=_EXPIRES)
    status_url: str = Field(description="Where this answer can be had again.")
    cancel_url: str = Field(description="Where a POST cancels the job.")
    events_url: str = Field(description="Where progress comes as server-sent events.")


class Problem(BaseModel):
    """Why a request was not served."""

    detail: str = Field(description="One sentence: what was wrong, what is expected, what to do.")
    id: str = Field(description="Id of the job, or of the request, for the operator.")


class Health(BaseModel):
    """How the service is."""

    status: Literal["healthy", "loading", "draining", "unhealthy"] = Field(
        description="healthy takes jobs; loading will soon; draining is about to end; unhealthy"
        " cannot start a worker."
    )
    message: str = Field(description="A sentence about it.")
    model_loaded: bool = Field(description="Whether a worker has its model ready.")
    model: str | None = Field(description="Model that requests with model auto get.")
    device: str = Field(description="Devices of the workers, with commas between.")
    workers: int = Field(description="Worker processes that are ready.")
    queue_length: int = Field(description="Jobs that wait.")
    queue_limit: int = Field(description="Jobs that may wait.")
    jobs_running: int = Field(description="Jobs in work.")
    version: str = Field(description="Version of onelook.")


def completed(job: Job, expires_in: float, root: str) -> Completed:
    """The answer to a client that waited for this job. root: prefix the service is mounted at."""
    return Completed(
        job_id=job.id, status="completed", message=job.message, model=job.metrics.get("model"),
        seed=job.metrics["seed"], notes=job.notes, timings=_timings(job),
        metrics=_nested(job.metrics), expires_at=_moment(expires_in), **_addresses(job, root),
    )  # fmt: skip


def job_answer(job: Job, position: int | None, expires_in: float | None, root: str) -> JobAnswer:
    """The job as it stands."""
    options, here = job.work.options, f"{root}{PREFIX}/jobs/{job.id}"
    drawn_later = options.randomize_seed and not job.metrics
    return JobAnswer(
        job_id=job.id, status=job.state, message=job.message, progress=job.progress,
        stage=job.stage or None, position=position, model=job.metrics.get("model"),
        seed=None if drawn_later else job.metrics.get("seed", options.seed), notes=job.notes,
        timings=_timings(job), metrics=_nested(job.metrics),
        expires_at=None if expires_in is None else _moment(expires_in),
        status_url=here, cancel_url=f"{here}/cancel", events_url=f"{here}/events",
        **_addresses(job, root),
    )  # fmt: skip


def _addresses(job: Job, root: str) -> dict[str, str | None]:
    found = {}
    for output in OUTPUTS:
        name = job.outputs.get(output)
        found[url_field(output)] = name and f"{root}{PREFIX}/outputs/{job.id}/{name}"
    return found


def _timings(job: Job) -> Timings:
    waited = (job.started or job.finished or time.monotonic()) - job.created
    stages = _nested(job.metrics).get("seconds", {})
    running = round(job.running_seconds, 3)
    return Timings(queued=round(waited, 3), running=running, stages=stages)


def _nested(metrics: dict[str, Any]) -> dict[str, Any]:
    """Figures with a dot in their name, as objects in an object, as Cog shows them."""
    nested: dict[str, Any] = {}
    for name, figure in metrics.items():
        group, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(group, {})[rest] = figure
        else:
            nested[name] = figure
    return nested


def _moment(expires_in: float) -> str:
    """So many seconds from now, as the clock on the wall will show it."""
    moment = datetime.now(UTC) + timedelta(seconds=expires_in)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def form_schema(url_inputs: bool) -> dict[str, Any]:
    """JSON schema of the multipart form."""
    picture = {
        "type": "string",
        "format": "binary",
        "description": "Picture of one object: PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF, at most 25"
        " MB and 50 megapixels.",
    }
    further = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "maxItems": MOST_VIEWS,
        "default": [],  # else the OpenAPI page sends a text of its own making
        "description": "Further pictures of the same object, for models that take several.",
    }
    fields = {"image": picture, "images": further}
    if url_inputs:
        fields["image_url"] = {
            "type": "string",
            "format": "uri",
            "description": "Address of the picture instead of the file: https, public.",
        }
    fields |= {option.name: _option_schema(option) for option in option_fields()}
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return schema if url_inputs else schema | {"required": ["image"]}


def _option_schema(option: dataclasses.Field) -> dict[str, Any]:
    limits = option.metadata
    schema = {
        "type": _JSON_TYPES[type(option.default)],
        "default": option.default,
        "description": limits["help"],
    }
    if limits["choices"]:
        schema["enum"] = list(limits["choices"])
    if limits["minimum"] is not None:
        schema |= {"minimum": limits["minimum"], "maximum": limits["maximum"]}
    if limits["even"]:
        schema["multipleOf"] = 2
    return schema
