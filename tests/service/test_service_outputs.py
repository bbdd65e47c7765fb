"""Files of the real service: ranges, conditions, types; and ways to what is not one's own."""

from __future__ import annotations

import hashlib
import time

import pytest
from helpers.pictures import mushroom_png
from helpers.rest_server import CUT_OUT_ONLY, LARGE, SMALL

PICTURE = mushroom_png()


@pytest.fixture(scope="module")
def asset(service):
    return service.create(PICTURE, **SMALL, return_preview=True, return_no_background=True).body


@pytest.fixture(scope="module")
def whole(service, asset):
    answer = service.request("GET", asset["model_url"])
    assert answer.code == 200
    return answer


def test_a_file_comes_with_its_type_and_nothing_may_guess_another(service, asset, whole):
    assert whole.headers["content-type"] == "model/gltf-binary"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-disposition"] == 'inline; filename="output.glb"'
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert whole.headers["cache-control"].startswith("private, max-age=")
    for name in ("preview_image_url", "no_background_image_url"):
        assert service.request("GET", asset[name]).headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ({"generate_model": False, "video_size": 256}, "video/mp4"),
        ({"generate_video": False, "format": "obj"}, "application/zip"),
        ({"generate_video": False, "format": "ply"}, "model/ply"),
        ({"generate_video": False, "format": "stl"}, "model/stl"),
    ],
)
def test_every_format_has_its_type(service, made, kind):
    body = service.create(PICTURE, **SMALL | {"generate_video": True} | made).body
    (address,) = filter(None, (body["model_url"], body["video_url"]))
    answer = service.request("HEAD", address)
    assert (answer.code, answer.headers["content-type"], answer.content) == (200, kind, b"")


def test_etag_is_of_the_content_and_spares_sending_it_again(service, asset, whole):
    etag = whole.headers["etag"]
    assert etag == f'"{hashlib.sha256(whole.content).hexdigest()[:32]}"'
    for known in (etag, f'"other", W/{etag}', "*"):
        answer = service.request("GET", asset["model_url"], headers={"If-None-Match": known})
        assert (answer.code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    answer = service.request("GET", asset["model_url"], headers={"If-None-Match": '"other"'})
    assert answer.code == 200


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, None),
        ("bytes=-10", -10, None),
        ("bytes=5-999999999", 5, None),
        ("bytes=7-7", 7, 7),
    ],
)
def test_a_range_is_that_part(service, asset, whole, asked, first, last):
    answer = service.request("GET", asset["model_url"], headers={"Range": asked})
    expected = whole.content[first:] if last is None else whole.content[first : last + 1]
    assert (answer.code, answer.content) == (206, expected)
    size, start = len(whole.content), first % len(whole.content)
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{size}"


def test_ranges_that_are_none_give_everything_or_416(service, asset, whole):
    size = len(whole.content)
    for asked in ("bytes=9-3", "bytes=0-1,5-6", "pages=1-2", "bytes=-", "bytes=a-b"):
        answer = service.request("GET", asset["model_url"], headers={"Range": asked})
        assert (answer.code, len(answer.content)) == (200, size), asked
    for asked in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        answer = service.request("GET", asset["model_url"], headers={"Range": asked})
        assert answer.code == 416, asked
        assert answer.headers["content-range"] == f"bytes */{size}"
    changed = {"Range": "bytes=0-9", "If-Range": '"another"'}
    assert service.request("GET", asset["model_url"], headers=changed).code == 200
    same = {"Range": "bytes=0-9", "If-Range": whole.headers["etag"]}
    assert service.request("GET", asset["model_url"], headers=same).code == 206


def test_deleting_removes_files_and_job(service):
    body = service.create(PICTURE, **CUT_OUT_ONLY).body
    job, place = body["job_id"], f"/api/v1/outputs/{body['job_id']}"
    file = f"{job}/outputs/output_no_background.png"
    assert file in service.files()
    assert service.request("DELETE", place).code == 204
    assert [name for name in service.files() if name.startswith(job)] == []
    for path in (body["no_background_image_url"], f"/api/v1/jobs/{body['job_id']}"):
        assert service.request("GET", path).code == 404
    assert service.request("DELETE", place).code == 404


def test_a_job_that_runs_cannot_be_deleted(service):
    job = service.start(PICTURE, **LARGE)
    assert service.request("DELETE", f"/api/v1/outputs/{job}").code == 409
    service.request("POST", f"/api/v1/jobs/{job}/cancel")
    service.wait_for(job)


def test_only_files_of_this_very_job_are_there(service, asset, whole):
    other = service.create(PICTURE, **CUT_OUT_ONLY).body["job_id"]
    job = asset["job_id"]
    (scratch,) = service.storage.iterdir()
    folder = scratch / job / "outputs"
    (folder / "link.glb").symlink_to("/etc/passwd")
    (folder / "unlisted.txt").write_text("not for the world")
    names = [
        "link.glb", "unlisted.txt", "picture-0", "no_background.png/", "OUTPUT.GLB",
        "output.glb%00", "output_preview.png", ".", "..", "%2e%2e", "%2Fetc%2Fpasswd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "..%5c..%5cwindows", "../../../../../../etc/passwd", "/etc/passwd", "%252e%252e%252fpasswd",
        "file:///etc/passwd", "..;/output.glb", "%c0%ae%c0%ae/passwd", "output.glb/../output.glb",
        f"../{other}/no_background.png", f"..%2f{other}%2fno_background.png",
        f"../{other}/outputs/output_no_background.png", f"{folder}/output.glb",
    ]  # fmt: skip
    for name in names:
        answer = service.request("GET", f"/api/v1/outputs/{job}/{name}")
        assert answer.code == 404, (name, answer.code)
        assert answer.body.keys() == {"detail", "id"}
    for place in (f"{other}/output.glb", f"%2e%2e/{job}/output.glb", f"./{job}/output.glb",
                  f"{job.upper()}/output.glb", f"*/{job}", "../../../etc/passwd"):  # fmt: skip
        assert service.request("GET", f"/api/v1/outputs/{place}").code == 404, place
    assert service.request("GET", f"/api/v1/outputs/{other}/no_background.png").code == 200


def test_a_file_replaced_by_a_link_is_not_followed(service):
    made = service.create(PICTURE, **CUT_OUT_ONLY).body
    (scratch,) = service.storage.iterdir()
    file = scratch / made["job_id"] / "outputs" / "output_no_background.png"
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert service.request("GET", made["no_background_image_url"]).code == 404


def test_jobs_end_with_their_time_and_the_oldest_with_the_quota(strict_service):
    key = {"X-API-Key": "first-key"}
    small = CUT_OUT_ONLY | {"preprocess_image": False}
    jobs = []
    for size in (400, 420, 440):  # each some 4 kB of PNG; the quota is 50 kB
        made = strict_service.create(mushroom_png(size), key, **small)
        assert made.code == 200, made.body
        jobs.append(made.body["job_id"])
    assert strict_service.request("GET", f"/api/v1/jobs/{jobs[0]}", headers=key).code == 200
    made_at = time.monotonic()
    big = strict_service.create(PICTURE, key, **SMALL).body  # beyond the quota by itself

    def code_of(path: str) -> int:
        return strict_service.request("GET", path, headers=key).code

    while [code_of(f"/api/v1/jobs/{job}") for job in jobs] != [404] * 3:
        assert time.monotonic() - made_at < 2.9  # their time is 3 s
        time.sleep(0.05)
    assert code_of(big["model_url"]) == 200  # the newest stays its time
    while code_of(big["model_url"]) != 404:
        assert time.monotonic() - made_at < 10
        time.sleep(0.1)
    strict_service.wait_for_no_files()
