"""What goes wrong in a worker, on the disk or with the clock stays with its job, for a moment."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import mushroom_png
from helpers.rest_server import ASYNC, CUT_OUT_ONLY, LARGE, SMALL, RestServer
from PIL import Image

PICTURE = mushroom_png()
STAGES = ("cut out", "shape", "clean", "simplify", "unwrap", "bake", "write model", "preview")


def test_a_killed_worker_fails_its_job_and_the_next_one_succeeds(faulty_service):
    job = faulty_service.start(PICTURE, **LARGE)
    next_job = faulty_service.start(PICTURE, **CUT_OUT_ONLY)
    faulty_service.wait_for_stage(job, "shape")
    begin = time.monotonic()
    os.kill(faulty_service.worker_pid(), signal.SIGKILL)
    failed = faulty_service.wait_for(job)
    assert failed["status"] == "failed"
    assert failed["message"].startswith("The worker process ended while it made the model")
    assert faulty_service.wait_for(next_job, seconds=20)["status"] == "succeeded"
    assert time.monotonic() - begin < 10
    faulty_service.wait_for_no_files(job)
    assert faulty_service.health()["status"] == "healthy"


def test_an_idle_worker_that_dies_is_replaced_unseen(faulty_service):
    dead = faulty_service.worker_pid()
    os.kill(dead, signal.SIGKILL)
    assert faulty_service.create(PICTURE, **CUT_OUT_ONLY).code == 200
    assert faulty_service.worker_pid() != dead


@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_in_any_stage_fails_that_job_alone(faulty_service, stage):
    worker = faulty_service.worker_pid()
    faulty_service.fault(f"oom:{stage}")
    answer = faulty_service.create(PICTURE, **SMALL, return_preview=True)
    assert answer.code == 503
    assert answer.body["detail"].startswith("There was too little memory for this job")
    assert faulty_service.job(answer.body["id"])["status"] == "failed"
    faulty_service.wait_for_no_files(answer.body["id"])
    faulty_service.fault()
    assert faulty_service.create(PICTURE, **CUT_OUT_ONLY).code == 200
    assert faulty_service.worker_pid() == worker


def test_a_worker_that_talks_nonsense_is_replaced(faulty_service):
    worker = faulty_service.worker_pid()
    faulty_service.fault("babble:shape")
    answer = faulty_service.create(PICTURE, **SMALL)
    assert answer.code == 500 and answer.body["detail"].startswith("Something went wrong")
    faulty_service.fault()
    assert faulty_service.create(PICTURE, **CUT_OUT_ONLY).code == 200
    assert faulty_service.worker_pid() != worker


def test_a_job_that_hears_nothing_is_canceled_with_its_worker(faulty_service):
    worker = faulty_service.worker_pid()
    faulty_service.fault("hang:shape")
    job = faulty_service.start(PICTURE, **SMALL)
    faulty_service.wait_for_stage(job, "shape")
    faulty_service.fault()
    faulty_service.request("POST", f"/api/v1/jobs/{job}/cancel")
    assert faulty_service.wait_for(job, seconds=10)["status"] == "canceled"
    assert faulty_service.create(PICTURE, **CUT_OUT_ONLY).code == 200
    assert faulty_service.worker_pid() != worker


def test_a_canceled_job_sleeping_in_a_stage_ends_at_once(faulty_service):
    worker = faulty_service.worker_pid()
    faulty_service.fault("slow:bake")
    job = faulty_service.start(PICTURE, **SMALL)
    faulty_service.wait_for_stage(job, "bake")
    begin = time.monotonic()
    faulty_service.request("POST", f"/api/v1/jobs/{job}/cancel")
    assert faulty_service.wait_for(job)["status"] == "canceled"
    assert time.monotonic() - begin < 2
    faulty_service.fault()
    assert faulty_service.create(PICTURE, **CUT_OUT_ONLY).code == 200
    assert faulty_service.worker_pid() == worker


def test_a_job_that_takes_too_long_fails(faulty_service):
    faulty_service.fault("slow:shape")
    answer = faulty_service.create(PICTURE, **SMALL)
    assert answer.code == 504
    assert answer.body["detail"].startswith("The job took longer than the 3 s")


def test_the_clock_on_the_wall_neither_ends_nor_keeps_a_job(faulty_service):
    job = faulty_service.create(PICTURE, **CUT_OUT_ONLY).body["job_id"]
    made = time.monotonic()
    faulty_service.clock(86400)
    time.sleep(1.2)  # the sweep comes every second
    assert faulty_service.job(job)["status"] == "succeeded"
    faulty_service.clock(-86400)
    while faulty_service.request("GET", f"/api/v1/jobs/{job}").code == 200:
        assert time.monotonic() - made < 6
        time.sleep(0.1)
    assert time.monotonic() - made > 1.9
    faulty_service.wait_for_no_files(job)


def test_sigterm_finishes_what_was_accepted_and_leaves_nothing(start_faulty, tmp_path):
    with start_faulty(tmp_path, {"drain_seconds": 20}) as server:
        job = server.start(PICTURE, **SMALL)
        events = server.events(job)
        next(events)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until("draining")
        refused = server.create(PICTURE, ASYNC, **SMALL)
        assert (refused.code, refused.headers["retry-after"]) == (503, "30")
        assert list(events)[-1][0] == "succeeded"
        done = server.job(job)
        assert server.request("GET", done["model_url"]).content[:4] == b"glTF"
        assert server.process.wait(10) == -signal.SIGTERM  # as uvicorn ends
    assert list(server.storage.iterdir()) == []


def test_ends_that_are_no_good_order(start_faulty, tmp_path):
    """A killed service takes its worker along and the next one tidies up; that one is told to end
    twice: those who wait are told, and it is gone soon, with everything it held.
    """
    with start_faulty(tmp_path) as server:
        server.fault("slow:shape")
        job = server.start(PICTURE, **SMALL)
        server.wait_for_stage(job, "shape")
        worker = server.worker_pid()
        server.process.kill()
        server.process.wait()
    deadline = time.monotonic() + 5
    while _is_alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(list(server.storage.iterdir())) == 1
    with start_faulty(tmp_path, {"drain_seconds": 30}) as server:
        assert server.files() == []
        server.fault("slow:shape")
        with ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(server.create, PICTURE, **SMALL)
            while not server.health()["jobs_running"]:
                time.sleep(0.02)
            queued = threads.submit(server.create, PICTURE, **SMALL)
            while not server.health()["queue_length"]:
                time.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            server.wait_until("draining")
            server.process.send_signal(signal.SIGTERM)
            for answer in (waiting.result(5), queued.result(5)):
                assert answer.code == 503
                assert answer.body["detail"] == "The service is being stopped."
        assert server.process.wait(10) == -signal.SIGTERM
    assert list(server.storage.iterdir()) == []


def _is_alive(process: int) -> bool:
    """Also where nobody waits for it: then it stays as a zombie."""
    try:
        return "Z (zombie)" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_full_disk_fails_the_job_and_is_over_when_there_is_room(tmp_path):
    """A file system of 1 MB in memory; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        with RestServer(tmp_path / "service", {"storage": disk}) as server:
            server.storage = disk
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(1_000_000))
            noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
            answers = [server.create(PICTURE, **SMALL), server.create(_png(noise), **SMALL)]
            assert [answer.code for answer in answers] == [507, 507]
            for answer in answers:
                assert "disk" in answer.body["detail"] and "full" in answer.body["detail"]
            ballast.unlink()
            server.wait_for_no_files()
            assert server.create(PICTURE, **SMALL).code == 200
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
