"""`onelook batch` on a real Ray of this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

from helpers.pictures import mushroom_png

from onelook.batch.command import add_arguments, run
from onelook.batch.pipeline import run_pipeline, start_ray
from onelook.batch.sources import list_items
from onelook.batch.stages import Job, Make, Row
from onelook.engine import Engine
from onelook.errors import OptionError
from onelook.options import Options

QUICK = {"model": "relief", "texture_size": 256, "decimation_target": 500, "generate_video": False}


@pytest.fixture(scope="module", autouse=True)
def ray():
    """One Ray for all tests; the command would start and end its own."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    yield ray
    ray.shutdown()


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"mushroom{number}.png").write_bytes(mushroom_png(64 + 32 * number))
    (folder / "broken.png").write_bytes(mushroom_png()[:200])
    return folder


def batch(monkeypatch, *arguments: object, **options: object) -> int:
    """The command with this module's Ray."""
    import ray

    monkeypatch.setattr(ray, "shutdown", lambda: None)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parsed = parser.parse_args([str(one) for one in arguments])
    vars(parsed).update(QUICK | options)
    return run(parsed)


def test_a_folder_becomes_assets_and_rows_and_is_resumed(pictures, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    code = batch(monkeypatch, pictures, out, "--device", "cpu", "--results", "jsonl")
    assert code == 1, "one picture is broken"
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [
        "broken.png",
        *(f"mushroom{n}.png" for n in range(3)),
    ]
    assert [row["status"] for row in rows] == ["failed", *["succeeded"] * 3]
    assert "damaged or cut short" in rows[0]["error"]
    engine = Engine("cpu")
    for row in rows[1:]:  # none is mixed up with another
        alone = engine.generate(
            pictures / row["source"], Options(**QUICK), tmp_path / "alone", row["name"]
        )
        assert (out / row["model_file"]).read_bytes() == alone.files["model_file"].read_bytes()
    assert not [path for path in out.rglob(".*")], "something was left behind"

    written = (out / rows[1]["model_file"]).stat().st_mtime_ns
    (pictures / "broken.png").write_bytes(mushroom_png())
    capsys.readouterr()
    assert batch(monkeypatch, pictures, out, "--device", "cpu", "--results", "jsonl") == 0
    assert "4 pictures: 1 made, 3 were already there, 0 failed" in capsys.readouterr().out
    assert (out / rows[1]["model_file"]).stat().st_mtime_ns == written


class Mortal(Make):
    """A maker that is killed by one of the pictures, as for want of memory."""

    def __call__(self, row: Row) -> Row:
        if row["name"] == "mushroom1":
            os._exit(1)
        return super().__call__(row)


def test_a_dead_worker_costs_its_picture_not_the_batch(pictures, tmp_path):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    start_ray(None)
    job = Job(Options(**QUICK), str(tmp_path / "out"), "cpu")
    rows = list(run_pipeline(list_items(pictures), job, engines=1, make=Mortal))
    found = {row["name"]: row["status"] for row in rows}
    assert found == {
        "broken": "failed", "mushroom0": "succeeded", "mushroom1": "failed",
        "mushroom2": "succeeded",
    }  # fmt: skip
    died = next(row for row in rows if row["name"] == "mushroom1")
    assert "the worker died on this picture" in died["error"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--results", "xml"), "results must be one of parquet, csv, jsonl"),
        (("--engines", "0"), "engines must be at least 1"),
        (("--column", "path"), "holds no picture"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path, monkeypatch, arguments, sentence
):
    (tmp_path / "in").mkdir()
    with pytest.raises(OptionError, match=sentence):
        batch(monkeypatch, tmp_path / "in", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_said_at_once(pictures, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="no Ray cluster listens at 127.0.0.1 on port 9"):
        batch(monkeypatch, pictures, tmp_path / "out", "--address", "127.0.0.1:9")


def test_a_missing_extra_is_said_with_its_remedy(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"ray and pyarrow; .*pip install 'onelook\[batch\]'"):
        batch(monkeypatch, pictures, tmp_path / "out")
