"""What the service counts, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from onelook.service.jobs import Job

_JOB_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30, 120, 600)


class Measures:
    """One registry per service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "onelook_requests", "Requests by route, method and status code.",
            ("route", "method", "code"), registry=self._registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "onelook_request_seconds", "Time to the end of the answer.", ("route",),
            buckets=_REQUEST_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.jobs = Counter(
            "onelook_jobs", "Jobs that are over, by state and, of failed ones, kind of failure.",
            ("state", "failure"), registry=self._registry,
        )  # fmt: skip
        self.job_seconds = Histogram(
            "onelook_job_seconds", "How long jobs that succeeded ran, by model.", ("model",),
            buckets=_JOB_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "onelook_stage_seconds", "Time in each stage of jobs that succeeded.", ("stage",),
            buckets=_JOB_SECONDS, registry=self._registry,
        )  # fmt: skip

    def show(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when somebody looks."""
        Gauge(f"onelook_{name}", meaning, registry=self._registry).set_function(value)

    def count_job(self, job: Job) -> None:
        self.jobs.labels(job.state.value, job.failure).inc()
        if job.metrics:
            self.job_seconds.labels(job.metrics.get("model", "none")).observe(job.running_seconds)
            for name, seconds in job.metrics.items():
                stage = name.removeprefix("seconds.")
                if stage not in (name, "total"):
                    self.stage_seconds.labels(stage).observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self._registry)
