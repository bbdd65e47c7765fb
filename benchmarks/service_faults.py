"""Faults: the REST service while workers die, memory runs out, clients leave and the disk fills.

    python benchmarks/service_faults.py [--check] [--write]

The real service and worker; only what makes a stage fail is put in (faulty_worker.py of the tests).
After each fault the next job must succeed, and in the end nothing may lie on the disk.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from hostile_pictures import noise, saved
from table import RELIABILITY_PAGE, Figure, finish, parser

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.pictures import mushroom_png  # noqa: E402 (the tests' helpers are no package)
from helpers.rest_server import (  # noqa: E402
    CREATE,
    CUT_OUT_ONLY,
    SMALL,
    FaultyServer,
    RestServer,
    form,
)

PICTURE = mushroom_png()
STAGES = (
    "cut out", "shape", "clean", "simplify", "unwrap", "bake", "write model", "preview",
    "contact sheet", "video",
)  # fmt: skip
EVERYTHING = SMALL | {
    "generate_video": True, "video_size": 256, "return_preview": True, "return_contact_sheet": True,
}  # fmt: skip


def next_job_seconds(server: RestServer, since: float) -> float:
    """Seconds from `since` until a job has been made again."""
    answer = server.create(PICTURE, **CUT_OUT_ONLY)
    assert answer.code == 200, answer.content
    return time.monotonic() - since


def killed_in_each_stage(server: FaultyServer) -> list[Figure]:
    healthy, wrong = [], 0
    for stage in STAGES:
        server.fault(f"die:{stage}")
        job = server.start(PICTURE, **EVERYTHING)
        ended = server.wait_for(job)
        since = time.monotonic()
        wrong += ended["status"] != "failed"
        server.fault()
        healthy.append(next_job_seconds(server, since))
        server.wait_for_no_files(job)
    return [
        Figure("worker killed with SIGKILL, once in each stage", len(STAGES)),
        Figure("jobs not reported failed", wrong, at_most=0),
        Figure("until the next job has succeeded: slowest", max(healthy), "s", at_most=10),
    ]


def out_of_memory_in_each_stage(server: FaultyServer) -> list[Figure]:
    worker, wrong = server.worker_pid(), 0
    for stage in STAGES:
        server.fault(f"oom:{stage}")
        answer = server.create(PICTURE, **EVERYTHING)
        wrong += answer.code != 503 or "too little memory" not in answer.body["detail"]
        server.fault()
        next_job_seconds(server, time.monotonic())
        server.wait_for_no_files(answer.body["id"])
    return [
        Figure("memory ran out, once in each stage", len(STAGES)),
        Figure("answers other than 503 with the sentence", wrong, at_most=0),
        Figure("workers that had to be replaced", int(server.worker_pid() != worker), at_most=0),
    ]


def canceled_in_each_stage(server: FaultyServer) -> list[Figure]:
    worker, seconds, wrong = server.worker_pid(), [], 0
    for stage in STAGES:
        server.fault(f"slow:{stage}")
        job = server.start(PICTURE, **EVERYTHING)
        server.wait_for_stage(job, stage)
        server.fault()
        begin = time.monotonic()
        server.request("POST", f"/api/v1/jobs/{job}/cancel")
        wrong += server.wait_for(job)["status"] != "canceled"
        seconds.append(time.monotonic() - begin)
        server.wait_for_no_files(job)
        next_job_seconds(server, begin)
    return [
        Figure("canceled, once in each stage", len(STAGES)),
        Figure("jobs not reported canceled", wrong, at_most=0),
        Figure("until it was over: slowest", max(seconds), "s", at_most=5),
        Figure("workers replaced", int(server.worker_pid() != worker), at_most=0),
    ]


def clients_that_leave(server: FaultyServer, count: int = 10) -> list[Figure]:
    """In the middle of a job, and in the middle of an upload."""
    server.fault("slow:bake")
    body, kind = form(PICTURE, **SMALL)
    worst = 0.0
    for number in range(count):
        client = http.client.HTTPConnection("127.0.0.1", server.port)
        if number % 2:
            client.putrequest("POST", CREATE)
            client.putheader("Content-Type", kind)
            client.putheader("Content-Length", str(10 * len(body)))
            client.endheaders()
            client.send(body)
            time.sleep(0.05)
        else:
            client.request("POST", CREATE, body, {"Content-Type": kind})
            while not server.health()["jobs_running"]:
                time.sleep(0.01)
        begin = time.monotonic()
        client.close()
        while server.health()["jobs_running"]:
            time.sleep(0.01)
        worst = max(worst, time.monotonic() - begin)
    server.fault()
    next_job_seconds(server, begin)
    return [
        Figure("clients that left", count),
        Figure("until their place was free: slowest", worst, "s", at_most=6),
    ]


def clock_jumps(server: FaultyServer, ttl: float) -> list[Figure]:
    job = server.create(PICTURE, **CUT_OUT_ONLY).body["job_id"]
    made, wrong = time.monotonic(), 0
    for jump in (10 * 86400, -10 * 86400):
        server.clock(jump)
        time.sleep(1.2)
        wrong += server.request("GET", f"/api/v1/jobs/{job}").code != 200
    while server.request("GET", f"/api/v1/jobs/{job}").code == 200:
        time.sleep(0.05)
    server.clock(0)
    return [
        Figure("clock set on and back by ten days: jobs lost", wrong, at_most=0),
        Figure(f"time that a job of {ttl:g} s was kept", time.monotonic() - made, "s",
               at_least=ttl - 0.1, at_most=ttl + 2.5),
    ]  # fmt: skip


def full_disk(folder: Path) -> list[Figure]:
    """A file system of 1 MB; needs the right to mount one."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        print("no disk can be mounted here: left out", file=sys.stderr)
        return []
    try:
        with RestServer(folder / "full", {"storage": disk}) as server:
            server.storage = disk
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(1_000_000))
            pictures = [PICTURE, saved(noise((300, 300)), "PNG")] * 5
            codes = [server.create(picture, **SMALL).code for picture in pictures]
            ballast.unlink()
            server.wait_for_no_files()
            again = next_job_seconds(server, time.monotonic())
        left = len(list(disk.iterdir()))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return [
        Figure("disk full: requests", len(codes)),
        Figure("answers other than 507", len(codes) - codes.count(507), at_most=0),
        Figure("until a job succeeds, with room again", again, "s"),
        Figure("files left", left, at_most=0),
    ]


def ended_by_sigterm(folder: Path) -> list[Figure]:
    with RestServer(folder / "drained", {"drain_seconds": 60}) as server:
        jobs = [server.start(PICTURE, **EVERYTHING) for _ in range(3)]
        streams = [server.events(job) for job in jobs]
        for stream in streams:
            next(stream)
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        lost = sum(list(stream)[-1][0] != "succeeded" for stream in streams)
        fetched = sum(
            server.request("GET", server.job(job)["model_url"]).content[:4] == b"glTF"
            for job in jobs
        )
        server.process.wait(30)
        seconds = time.monotonic() - begin
    left = len(list(server.storage.iterdir()))
    return [
        Figure("SIGTERM with three jobs accepted: lost", lost, at_most=0),
        Figure("their models fetched meanwhile", fetched, at_least=3),
        Figure("until the service had ended", seconds, "s"),
        Figure("files left", left, at_most=0),
    ]


def main() -> int:
    arguments = parser(__doc__.splitlines()[0]).parse_args()
    figures, ttl = [], 4.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with FaultyServer(folder / "faulty", {"ttl": ttl}) as server:
            figures += killed_in_each_stage(server)
            figures += out_of_memory_in_each_stage(server)
            figures += canceled_in_each_stage(server)
            figures += clients_that_leave(server)
            figures += clock_jumps(server, ttl)
            server.wait_for_no_files(seconds=ttl + 3)
            figures.append(Figure("files left after their time", len(server.files()), at_most=0))
            words = ("Traceback", str(ROOT), str(folder))
            figures.append(
                Figure("tracebacks or paths in the log", sum(map(server.log.count, words)),
                       at_most=0)
            )  # fmt: skip
        figures += ended_by_sigterm(folder)
        figures += full_disk(folder)
    figures.append(Figure("load average of the machine meanwhile", float(np.max(os.getloadavg()))))
    return finish("service_faults", figures, arguments, RELIABILITY_PAGE)


if __name__ == "__main__":
    sys.exit(main())
