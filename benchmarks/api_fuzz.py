"""API fuzz: schemathesis against the REST service and against the Cog server.

    python benchmarks/api_fuzz.py [--check] [--write] [--examples 100]

Every operation of each server's own OpenAPI gets made-up requests, right and wrong ones. No answer
may be a 5xx, break off, or differ from what the schema says. What Cog's server itself is known to
do against its schema is listed, and counted apart; nothing of it is ours to change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from table import RELIABILITY_PAGE, Figure, finish, parser

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.cog_server import CogServer  # noqa: E402 (the tests' helpers are no package)
from helpers.pictures import mushroom_png  # noqa: E402
from helpers.rest_server import FaultyServer, RestServer  # noqa: E402

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    "unsupported_method",
)  # fmt: skip
COGS_OWN = {  # check and operation -> what Cog's server does, whatever model it serves
    "status_code_conformance: POST /predictions": "400 for what is no JSON, 409 when busy, 415",
    "status_code_conformance: POST /predictions/{prediction_id}/cancel": "404 for an unknown id",
    "content_type_conformance: POST /predictions": "plain text where JSON is of another shape",
    "negative_data_rejection: POST /predictions": "`format: uri` is left to the model",
}


@dataclass(frozen=True)
class Found:
    """What one run of schemathesis saw."""

    requests: int
    server_errors: int
    violations: Counter  # "check: method path" -> times


def fuzz(
    url: str,
    folder: Path,
    examples: int,
    jobs: Sequence[str] = (),
    phases: str = "examples,coverage,fuzzing",
) -> Found:
    """Fuzz the server at `url` by the schema it publishes. jobs: ids of some that it knows."""
    record = folder / "events.ndjson"
    command = [
        Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json",
        "--max-examples", str(examples), "--seed", "1", "--continue-on-failure", "--no-color",
        "--phases", phases, "--checks", ",".join(CHECKS),
        "--report", "ndjson", "--report-ndjson-path", str(record),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "COLUMNS": "200",
        "PYTHONPATH": f"{ROOT / 'tests'}",
        "SCHEMATHESIS_HOOKS": "helpers.fuzz_hooks",
        "FUZZ_JOBS": ",".join(jobs),
    }
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    (folder / "schemathesis.txt").write_text(done.stdout)
    if done.returncode not in (0, 1) or not record.exists():
        raise RuntimeError(done.stdout[-3000:])
    return read_record(record)


def read_record(record: Path) -> Found:
    requests, errors, violations = 0, 0, Counter()
    for line in record.read_text().splitlines():
        event = json.loads(line)
        for scenario in event.values():
            recorder = scenario.get("recorder") if isinstance(scenario, dict) else None
            if not recorder or "interactions" not in recorder:
                continue
            for interaction in recorder["interactions"].values():
                requests += 1
                response = interaction.get("response")
                errors += response is None or response["status_code"] >= 500
            for identifier, checks in recorder["checks"].items():
                case = recorder["cases"][identifier]["value"]
                for check in checks:
                    if check["status"] == "failure":
                        violations[f"{check['name']}: {case['method']} {case['path']}"] += 1
    return Found(requests, errors, violations)


def some_jobs(server: RestServer) -> list[str]:
    """Ids of jobs in every state a job may keep."""
    small = {"decimation_target": 500, "texture_size": 256, "generate_video": False}
    done = [server.create(mushroom_png(), **small, return_preview=True) for _ in range(20)]
    empty = {"generate_model": False, "generate_video": False}  # fails: nothing to do
    failed, canceled = server.start(mushroom_png(), **empty), server.start(mushroom_png())
    server.request("POST", f"/api/v1/jobs/{canceled}/cancel")
    return [*(answer.body["job_id"] for answer in done), failed, canceled]


def main() -> int:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--examples", type=int, default=100, help="requests per operation and phase")
    arguments = made.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with FaultyServer(folder / "rest") as server:
            server.fault("frugal")  # made-up options would take minutes each
            rest = fuzz(server.url, folder, arguments.examples, some_jobs(server))
            log = server.log
        print((folder / "schemathesis.txt").read_text()[-4000:], file=sys.stderr)
        with CogServer(folder / "cog") as server:
            cog = fuzz(f"http://127.0.0.1:{server.port}", folder, arguments.examples)
        print((folder / "schemathesis.txt").read_text()[-4000:], file=sys.stderr)
    for server, found, known in (("REST", rest, {}), ("Cog", cog, COGS_OWN)):
        new = {what: times for what, times in found.violations.items() if what not in known}
        for what, times in found.violations.items():
            print(f"{server}: {what}: {times} times, {known.get(what, 'NEW')}", file=sys.stderr)
        figures += [
            Figure(f"{server}: requests", found.requests),
            Figure(f"{server}: answers 5xx, or none", found.server_errors, at_most=0),
            Figure(f"{server}: schema violations", len(new), at_most=0),
        ]
        if known:
            figures.append(Figure(f"{server}: its own known violations", len(known)))
    figures.append(Figure("REST: tracebacks in the log", log.count("Traceback"), at_most=0))
    return finish("api_fuzz", figures, arguments, RELIABILITY_PAGE)


if __name__ == "__main__":
    sys.exit(main())
