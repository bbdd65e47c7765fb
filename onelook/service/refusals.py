"""Why a request is not served: a status code, one sentence, and an id to ask the operator about."""

from __future__ import annotations

from onelook.service.jobs import Job, State

CODES = {  # kind of failure -> status code; others are 500
    "PictureError": 422,
    "ForegroundError": 422,
    "OptionError": 422,
    "SurfaceError": 422,
    "GenerationError": 422,
    "WeightsError": 422,  # of a model that was asked for by name and is not here
    "OutOfMemory": 503,
    "DeviceMemoryError": 503,
    "Stopped": 503,
    "TooLong": 504,
    "OutputError": 507,
}


class Refusal(Exception):
    """Ends a request; the doors of the service turn it into an answer."""

    def __init__(
        self,
        code: int,
        sentence: str,
        headers: dict[str, str] | None = None,
        identifier: str | None = None,
    ):
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.headers = headers or {}
        self.identifier = identifier  # of the job; None: of the request


def failed(job: Job) -> Refusal:
    """What a client hears that waited for this job, which has no result."""
    code = 409 if job.state is State.CANCELED else CODES.get(job.failure, 500)
    return Refusal(code, job.message, identifier=job.id)


def unknown() -> Refusal:
    """The same words for what never was, what is gone and what is another's."""
    return Refusal(404, "There is no such job or file here, or its time is over.")
