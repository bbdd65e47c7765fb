"""Who may do what: keys, owners, web origins; and what answers and logs never hold."""

from __future__ import annotations

import re

import pytest
from helpers.pictures import mushroom_png
from helpers.rest_server import ASYNC, CUT_OUT_ONLY, ROOT, SMALL

PICTURE = mushroom_png()
FIRST, SECOND = {"Authorization": "Bearer first-key"}, {"X-API-Key": "second-key"}


def test_without_a_key_only_health_and_the_page_are_there(strict_service):
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        assert strict_service.request("GET", path).code == 200
    for method, path in (
        ("POST", "/api/v1/image-to-3d"), ("GET", "/metrics"), ("GET", "/api/v1/jobs/x"),
        ("POST", "/api/v1/jobs/x/cancel"), ("GET", "/api/v1/jobs/x/events"),
        ("GET", "/api/v1/outputs/x/output.glb"), ("DELETE", "/api/v1/outputs/x"),
    ):  # fmt: skip
        answer = strict_service.request(method, path)
        assert (answer.code, answer.headers["www-authenticate"]) == (401, "Bearer"), path


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"}, {"Authorization": "first-key"}, {"X-API-Key": ""},
        {"Authorization": "Basic first-key"}, {"X-API-Key": "FIRST-KEY"},
        {"X-API-Key": "first-keysecond-key"},
    ],
)  # fmt: skip
def test_a_wrong_key_is_401(strict_service, headers):
    assert strict_service.request("GET", "/metrics", headers=headers).code == 401


def test_the_job_of_one_key_is_unknown_to_another(strict_service):
    answer = strict_service.create(PICTURE, FIRST | ASYNC, **CUT_OUT_ONLY)
    job = answer.body["job_id"]
    mine = f"/api/v1/jobs/{job}"
    while strict_service.request("GET", mine, headers=FIRST).body["status"] != "succeeded":
        pass
    file = f"/api/v1/outputs/{job}/no_background.png"
    for method, path in (
        ("GET", mine), ("POST", f"{mine}/cancel"), ("GET", f"{mine}/events"), ("GET", file),
        ("DELETE", f"/api/v1/outputs/{job}"),
    ):  # fmt: skip
        assert strict_service.request(method, path, headers=SECOND).code == 404, path
    assert strict_service.request("GET", file, headers=FIRST).code == 200


def test_an_idempotency_key_belongs_to_its_owner(strict_service):
    same = {"Idempotency-Key": "one"}
    first = strict_service.create(PICTURE, FIRST | same, **CUT_OUT_ONLY).body
    second = strict_service.create(PICTURE, SECOND | same, **CUT_OUT_ONLY).body
    assert first["job_id"] != second["job_id"]


def test_only_named_origins_may_call_from_a_page(service, strict_service):
    shop, other = {"Origin": "https://shop.example"}, {"Origin": "https://other.example"}
    allowed = strict_service.request("GET", "/health", headers=shop).headers
    assert allowed["access-control-allow-origin"] == "https://shop.example"
    assert (
        "access-control-allow-origin"
        not in strict_service.request("GET", "/health", headers=other).headers
    )
    assert (
        "access-control-allow-origin" not in service.request("GET", "/health", headers=shop).headers
    )
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "Prefer"}
    path = "/api/v1/image-to-3d"
    assert strict_service.request("OPTIONS", path, headers=shop | asks).code == 200
    assert strict_service.request("OPTIONS", path, headers=other | asks).code == 400


def test_answers_and_logs_hold_no_path_key_or_traceback(faulty_service, strict_service):
    """After everything that goes wrong in this folder's other tests, and some more."""
    strict_service.create(b"no picture", FIRST)
    strict_service.request(
        "GET", "/api/v1/outputs/..%2f..%2fetc%2fpasswd/x?key=first-key", headers=FIRST
    )
    faulty_service.fault("unexpected:shape")
    broken = faulty_service.create(PICTURE, **SMALL)
    faulty_service.fault()
    assert broken.code == 500
    assert broken.body["detail"] == (
        "Something went wrong while making the model; tell the operator the id of this job."
    )
    (line,) = (
        line for line in faulty_service.log_lines
        if line["event"] == "job broke" and line["job_id"] == broken.body["id"]
    )  # fmt: skip
    assert line["error"] == "RuntimeError" and line["stage"] == "shape"
    assert all(re.fullmatch(r"[\w.]+:\d+", place) for place in line["places"])
    for running in (strict_service, faulty_service):
        text = running.log + broken.content.decode()
        for secret in (str(ROOT), str(running.storage), "/tmp", "/secret", "-key", "Traceback",
                       ".py", "passwd"):  # fmt: skip
            assert secret not in text, secret
