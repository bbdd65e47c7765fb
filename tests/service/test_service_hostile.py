"""A part of what the benchmarks send: hostile pictures, made-up requests, all clients at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.pictures import mushroom_png
from helpers.rest_server import ASYNC, CUT_OUT_ONLY, LARGE, SMALL
from hostile_pictures import HEAVY, KINDS, SEEDS, Watcher, mutants

LIGHT = [name for name in KINDS if not any(word in name for word in HEAVY)]


def test_hostile_pictures_end_in_a_cut_out_or_a_sentence(service):
    worker, watcher = service.worker_pid(), Watcher(service)
    pictures = [(name, KINDS[name]()) for name in LIGHT]
    pictures += [(name, make()) for name, make in SEEDS.items()]
    codes = {}
    for name, content in (*pictures, *mutants(60)):
        answer = service.create(content, **CUT_OUT_ONLY)
        codes[name] = answer.code
        assert answer.code in (200, 422), (name, answer.code)
        if answer.code == 422:
            sentence = answer.body["detail"]
            assert sentence[0].isupper() and sentence[-1] in ".:" and len(sentence) < 250, sentence
    watcher.stop()
    assert len(watcher.processes) == 1 and watcher.peak_mb < 600
    assert service.worker_pid() == worker
    assert {codes[name] for name in SEEDS} == {200}
    for name in ("animated gif", "cmyk jpeg", "turned by exif", "16 bits of grey", "lab tiff",
                 "palette with transparency", "broken exif", "png and zip in one"):  # fmt: skip
        assert codes[name] == 200, name
    for name in ("empty", "svg", "pdf", "heic", "1 x 1", "1 x 20000", "alpha all 0", "ico",
                 "png of ten gigapixels", "floats that are no numbers", "one colour"):  # fmt: skip
        assert codes[name] == 422, name


def test_of_many_at_once_as_many_are_taken_as_there_is_room(service):
    running = service.start(mushroom_png(), **LARGE)
    service.wait_for(running, "processing")
    together = threading.Barrier(24)

    def ask(_: int):
        together.wait()
        return service.create(mushroom_png(), ASYNC, **SMALL)

    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(ask, range(24)))
    accepted = [answer.body["job_id"] for answer in answers if answer.code == 202]
    assert len(accepted) == 3
    refused = [answer for answer in answers if answer.code == 429]
    assert len(refused) == 21 and all(int(a.headers["retry-after"]) >= 1 for a in refused)
    for job in (running, *accepted):
        service.request("POST", f"/api/v1/jobs/{job}/cancel")
        service.wait_for(job)


def test_made_up_requests_meet_the_schema(faulty_service, tmp_path):
    pytest.importorskip("schemathesis")
    from api_fuzz import fuzz

    faulty_service.fault("frugal")
    found = fuzz(faulty_service.url, tmp_path, 4, phases="fuzzing")
    assert found.requests >= 20
    assert (found.server_errors, dict(found.violations)) == (0, {})
