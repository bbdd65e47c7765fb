"""Jobs of the real service: made, waited for, watched, queued, refused, canceled, repeated."""

from __future__ import annotations

import http.client
import io
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import trimesh
from helpers.gltf_check import check_glb
from helpers.pictures import mushroom_png
from helpers.rest_server import ASYNC, CREATE, CUT_OUT_ONLY, LARGE, SMALL, form
from PIL import Image

from onelook.engine import OUTPUTS
from onelook.options import Options

PICTURE = mushroom_png()
ADDRESSES = {f"{output.removesuffix('_file')}_url" for output in OUTPUTS}


@pytest.fixture(scope="module")
def asset(service):
    answer = service.create(PICTURE, **SMALL, return_preview=True)
    assert answer.code == 200, answer.body
    return answer.body


def test_the_answer_names_the_files_and_how_they_were_made(service, asset):
    identifier = asset["job_id"]
    assert asset["status"] == "completed"
    assert asset["model_url"] == f"/api/v1/outputs/{identifier}/output.glb"
    assert asset["preview_image_url"] == f"/api/v1/outputs/{identifier}/preview.png"
    absent = ADDRESSES - {"model_url", "preview_image_url"}
    assert {name for name in ADDRESSES if asset[name] is None} == absent
    assert asset["model"] == "relief" and asset["seed"] == 42
    assert asset["message"].startswith("completed in")
    used = {name: getattr(Options(), name) for name in Options.__dataclass_fields__}
    assert asset["metrics"]["options"] == used | SMALL | {"return_preview": True}
    assert 0 < asset["timings"]["stages"]["bake"] < asset["timings"]["running"]
    left = datetime.fromisoformat(asset["expires_at"]) - datetime.now(UTC)
    assert 3500 < left.total_seconds() < 3601


def test_the_files_are_what_they_say(service, asset, tmp_path):
    model = service.request("GET", asset["model_url"])
    (tmp_path / "model.glb").write_bytes(model.content)
    assert len(check_glb(tmp_path / "model.glb").faces) <= SMALL["decimation_target"]
    preview = service.request("GET", asset["preview_image_url"])
    assert Image.open(io.BytesIO(preview.content)).size == (512, 512)


def test_the_same_request_gives_the_same_bytes(service, asset):
    again = service.create(PICTURE, **SMALL, return_preview=True).body
    assert again["job_id"] != asset["job_id"]
    for name in ("model_url", "preview_image_url"):
        first, second = (service.request("GET", made[name]) for made in (asset, again))
        assert first.content == second.content
        assert first.headers["etag"] == second.headers["etag"]


def test_a_job_is_answered_at_once_and_tells_how_it_gets_on(service):
    begin = time.monotonic()
    answer = service.create(PICTURE, ASYNC, **SMALL, randomize_seed=True)
    assert time.monotonic() - begin < 1
    assert answer.code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    identifier = answer.body["job_id"]
    assert answer.headers["location"] == f"/api/v1/jobs/{identifier}"
    assert answer.body["status"] in ("queued", "processing")
    assert answer.body["expires_at"] is None and answer.body["seed"] is None
    events = list(service.events(identifier))
    names = [name for name, _ in events]
    assert names[-1] == "succeeded" and set(names[:-1]) <= {"queued", "processing"}
    progress = [job["progress"] for _, job in events]
    assert progress == sorted(progress) and progress[-1] == 100
    stages = list(dict.fromkeys(job["stage"] for _, job in events if job["stage"]))
    planned = ["cut out", "shape", "clean", "simplify", "unwrap", "bake", "write model"]
    assert len(stages) >= 2 and stages == [stage for stage in planned if stage in stages]
    job = service.job(identifier)
    assert job == events[-1][1] | {"expires_at": job["expires_at"]}
    assert job["seed"] == job["metrics"]["seed"] != 42
    assert list(service.events(identifier))[0][0] == "succeeded"  # also afterwards


def test_a_full_queue_is_429_with_a_time_and_then_everything_goes_on(service):
    running = service.start(PICTURE, **LARGE)
    service.wait_for(running, "processing")
    waiting = [service.start(PICTURE, **CUT_OUT_ONLY) for _ in range(3)]
    assert [service.job(job)["position"] for job in waiting] == [1, 2, 3]
    assert service.health()["queue_length"] == 3
    refused = service.create(PICTURE, **CUT_OUT_ONLY)
    assert refused.code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 600
    assert service.request("POST", f"/api/v1/jobs/{waiting[1]}/cancel").body["status"] == "canceled"
    assert service.job(waiting[2])["position"] == 2
    assert service.request("POST", f"/api/v1/jobs/{running}/cancel").code == 200
    assert service.wait_for(running)["status"] == "canceled"
    assert service.wait_for(waiting[0])["status"] == "succeeded"
    assert service.wait_for(waiting[2])["status"] == "succeeded"


def test_canceling_stops_a_job_in_the_middle_and_leaves_nothing(service):
    worker = service.worker_pid()
    job = service.start(PICTURE, **LARGE)
    service.wait_for_stage(job, "bake")
    begin = time.monotonic()
    service.request("POST", f"/api/v1/jobs/{job}/cancel")
    assert service.wait_for(job)["status"] == "canceled"
    assert time.monotonic() - begin < 5
    service.wait_for_no_files(job)
    again = service.request("POST", f"/api/v1/jobs/{job}/cancel")
    assert (again.code, again.body["status"]) == (200, "canceled")
    assert service.create(PICTURE, **CUT_OUT_ONLY).code == 200
    assert service.worker_pid() == worker  # it did not have to be killed


def test_a_client_that_goes_away_frees_the_place(service):
    body, kind = form(PICTURE, **LARGE)
    client = http.client.HTTPConnection("127.0.0.1", service.port)
    client.request("POST", CREATE, body, {"Content-Type": kind})
    while service.health()["jobs_running"] == 0:
        time.sleep(0.02)
    client.close()
    deadline = time.monotonic() + 6
    while service.health()["jobs_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_request_repeated_with_its_key_is_the_same_job(service):
    key = {"Idempotency-Key": "order-66"}
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda _: service.create(PICTURE, key, **SMALL), range(3)))
    assert [answer.code for answer in answers] == [200] * 3
    assert len({answer.body["job_id"] for answer in answers}) == 1
    assert service.create(PICTURE, key, **SMALL).body["job_id"] == answers[0].body["job_id"]
    other = service.create(PICTURE, key, **SMALL, seed=1)
    assert other.code == 422 and "Idempotency-Key" in other.body["detail"]
    bad = service.create(PICTURE, {"Idempotency-Key": "x" * 201}, **SMALL)
    assert bad.code == 422


def test_the_key_of_a_canceled_job_is_free_again(service):
    key = {"Idempotency-Key": "order-67"}
    first = service.create(PICTURE, key | ASYNC, **LARGE).body["job_id"]
    service.request("POST", f"/api/v1/jobs/{first}/cancel")
    service.wait_for(first)
    second = service.create(PICTURE, key, **CUT_OUT_ONLY)
    assert second.code == 200 and second.body["job_id"] != first


def test_each_client_gets_its_own_picture_back(service):
    """Results are told apart by their colour."""
    colors = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]

    def disc(color: tuple[int, int, int]) -> bytes:
        image = Image.new("RGBA", (64, 64))
        image.paste((*color, 255), (12, 12, 52, 52))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def color_made_of(color: tuple[int, int, int]) -> tuple[int, ...]:
        made = service.create(disc(color), **SMALL).body
        content = service.request("GET", made["model_url"]).content
        (mesh,) = trimesh.load_scene(io.BytesIO(content), file_type="glb").geometry.values()
        texture = mesh.visual.material.baseColorTexture.convert("RGB")
        return max(texture.getcolors(2**20))[1]

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(color_made_of, colors))
    for wanted, got in zip(colors, made, strict=True):
        assert max(abs(a - b) for a, b in zip(wanted, got, strict=True)) < 40, (wanted, got)


def test_health_is_quick_while_a_job_runs(service):
    job = service.start(PICTURE, **LARGE)
    service.wait_for_stage(job, "bake")
    times = []
    for _ in range(40):
        begin = time.perf_counter()
        health = service.health()
        times.append(time.perf_counter() - begin)
        assert health["status"] == "healthy" and health["model_loaded"]
    service.request("POST", f"/api/v1/jobs/{job}/cancel")
    service.wait_for(job)
    assert sorted(times)[37] < 0.05


def test_metrics_count_what_happened(service, asset):
    page = service.request("GET", "/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    figures = dict(
        line.rsplit(" ", 1) for line in page.content.decode().splitlines() if line[0] != "#"
    )
    assert float(figures['onelook_jobs_total{failure="",state="succeeded"}']) >= 1
    assert float(figures['onelook_stage_seconds_count{stage="bake"}']) >= 1
    assert figures["onelook_workers_ready"] == "1.0"
    assert figures["onelook_queue_limit"] == "3.0"
    create = [
        name for name in figures if name.startswith("onelook_requests_total") and "3d" in name
    ]
    assert create
