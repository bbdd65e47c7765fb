"""The parts of a batch without Ray: what is listed, what each stage does, what is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")


import pyarrow as arrow
from helpers.pictures import mushroom_png
from pyarrow import parquet

from onelook.batch.results import finished_row, write_results
from onelook.batch.sources import Item, list_items
from onelook.batch.stages import Job, Make, export, new_row, read_picture, result_row
from onelook.engine import Engine
from onelook.errors import OptionError
from onelook.options import Options

QUICK = Options(
    model="relief", texture_size=256, decimation_target=500, generate_video=False,
    return_preview=True,
)  # fmt: skip


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


def test_a_folder_is_searched_with_its_subfolders(tmp_path):
    for place in ("b.JPG", "a.png", "deep/down/c.webp", ".hidden/d.png", "notes.txt", "out/e.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"x")
    found = list_items(tmp_path, leave_out=tmp_path / "out")
    assert [item.source for item in found] == ["a.png", "b.JPG", "deep/down/c.webp"]
    assert names(found) == ["a", "b", "c"]
    assert found[2].place == str(tmp_path / "deep/down/c.webp")


def test_equal_stems_get_names_that_do_not_depend_on_their_order(tmp_path):
    (tmp_path / "list").write_text("one/cup.png\ntwo/Cup.png\ncup.jpg\nother.png\n")
    (tmp_path / "turned").write_text("other.png\ncup.jpg\ntwo/Cup.png\none/cup.png\n")
    first, second = list_items(tmp_path / "list"), list_items(tmp_path / "turned")
    assert len({name.casefold() for name in names(first)}) == 4
    assert {i.source: i.name for i in first} == {i.source: i.name for i in second}


def test_a_list_has_paths_urls_comments_and_odd_names(tmp_path):
    lines = ["# pictures", "", "a b&c.png", "https://host.example/x/cup.png?size=2",
             "../../../etc/passwd", "a b&c.png", "...", "é.png"]  # fmt: skip
    (tmp_path / "list.txt").write_text("\n".join(lines))
    found = list_items(tmp_path / "list.txt")
    assert names(found) == ["a_b_c", "cup", "passwd", "picture", "é"]
    assert [item.is_url for item in found] == [False, True, False, False, False]


def test_a_parquet_file_gives_a_column(tmp_path):
    table = arrow.table({"id": [1, 2, 3], "path": ["a.png", None, "/b.png"], "x": ["c", "d", "e"]})
    parquet.write_table(table, tmp_path / "in.parquet")
    found = list_items(tmp_path / "in.parquet")
    assert [item.place for item in found] == [str(tmp_path / "a.png"), "/b.png"]
    assert names(list_items(tmp_path / "in.parquet", "x")) == ["c", "d", "e"]
    with pytest.raises(OptionError, match="has no column y; it has id, path, x"):
        list_items(tmp_path / "in.parquet", "y")
    with pytest.raises(OptionError, match="must hold paths or URLs as text"):
        list_items(tmp_path / "in.parquet", "id")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.txt", b"# nothing\n", "the input list is empty"),
        ("binary.txt", bytes(range(256)), "must be UTF-8 text"),
        ("broken.parquet", b"PAR1 no", "cannot be read as a parquet file"),
        ("absent", None, "does not exist"),
        ("folder/", None, "holds no picture"),
    ],
)
def test_an_input_with_nothing_to_do_is_refused(tmp_path, name, content, sentence):
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OptionError, match=sentence):
        list_items(tmp_path / name)


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    return Job(QUICK, str(tmp_path_factory.mktemp("out")), "cpu")


@pytest.fixture(scope="module")
def made(job, tmp_path_factory) -> tuple[Item, dict]:
    """One picture through all three stages."""
    place = tmp_path_factory.mktemp("in") / "mushroom.png"
    place.write_bytes(mushroom_png())
    item = Item("mushroom.png", str(place), "mushroom")
    return item, export(Make(job)(read_picture(new_row(item, job), job)), job)


def test_the_stages_make_what_the_engine_makes(job, made, tmp_path):
    _, row = made
    alone = Engine("cpu").generate(mushroom_png(), QUICK, tmp_path, "mushroom")
    for output in ("model_file", "preview_image"):
        assert Path(job.out, row[output]).read_bytes() == alone.files[output].read_bytes()
    assert row["video"] is None
    assert (row["status"], row["model"], row["faces"], row["seed"]) == (
        "succeeded", "relief", 500, 42,
    )  # fmt: skip
    assert sorted(path.name for path in Path(job.out).iterdir()) == ["mushroom"]


def test_what_is_there_is_not_made_again_unless_something_changed(job, made):
    item, row = made
    assert finished_row(item, job) == row
    other = Job(Options(model="relief"), job.out, "cpu")
    assert finished_row(item, other) is None
    assert finished_row(Item("else.png", item.place, "mushroom"), job) is None
    model = Path(job.out, row["model_file"])
    content = model.read_bytes()
    model.unlink()
    assert finished_row(item, job) is None
    model.write_bytes(content)
    place = Path(item.place)
    place.write_bytes(mushroom_png(128))
    assert finished_row(item, job) is None


def test_an_engine_that_cannot_be_loaded_is_told_in_every_row(tmp_path):
    job = Job(QUICK, str(tmp_path / "out"), "cuda:99")
    (tmp_path / "a.png").write_bytes(mushroom_png())
    make = Make(job)
    for name in ("one", "two"):
        item = Item(name, str(tmp_path / "a.png"), name)
        row = export(make(read_picture(new_row(item, job), job)), job)
        assert (row["status"], row["error"][:31]) == ("failed", "device cuda:99 is not on this m")


def test_other_settings_replace_their_own_files_and_nobody_elses(job, tmp_path):
    out = tmp_path / "out"
    row = {"name": "cup", "source": "cup.png", "fingerprint": "a", "error": "", "metrics": "{}",
           "seconds_read": 0.0, "seconds_made": 0.0}  # fmt: skip
    job = Job(QUICK, str(out), "cpu")
    both = {"outputs": ["model_file", "video"], "names": ["cup.glb", "cup.mp4"]}
    export({**row, **both, "contents": [b"1", b"2"]}, job)
    (out / "cup" / "notes.txt").write_text("mine")
    (out / "cup" / "cup.blend").write_text("mine, too")
    export({**row, "outputs": ["model_file"], "names": ["cup.glb"], "contents": [b"3"]}, job)
    assert sorted(path.name for path in (out / "cup").iterdir()) == [
        "cup.blend", "cup.glb", "notes.txt", "row.json",
    ]  # fmt: skip
    assert (out / "cup" / "cup.glb").read_bytes() == b"3"


@pytest.mark.parametrize(
    ("source", "content", "sentence"),
    [
        ("absent.png", None, "does not exist"),
        ("text.png", b"hello, I am text and long enough", "not a picture"),
        ("https://host.example/a.png", None, "--allow_urls"),
        ("empty.png", b"", "empty"),
        ("faint.png", "transparent", "transparent|no subject|empty"),
    ],
)
def test_whatever_is_wrong_with_a_picture_ends_in_its_row(tmp_path, source, content, sentence):
    job = Job(QUICK, str(tmp_path / "out"), "cpu")
    place = tmp_path / source if "://" not in source else source
    if content == "transparent":
        from onelook.foreground.png import encode_png

        content = encode_png(np.zeros((64, 64, 4), np.uint8))
    if content is not None:
        place.write_bytes(content)
    row = read_picture(new_row(Item(source, str(place), "one"), job), job)
    row = export(Make(job)(row), job)
    assert row["status"] == "failed"
    assert re.search(sentence, row["error"], re.IGNORECASE), row["error"]
    assert str(tmp_path) not in row["error"]
    assert not (tmp_path / "out" / "one").exists()


@pytest.mark.parametrize(
    "url",
    ["http://host.example/a.png", "ftp://host.example/a.png", "file:///etc/passwd",
     "https://127.0.0.1/a.png", "https://localhost/a.png", "https://[::1]/a.png",
     "https://user@host.example/a.png"],
)  # fmt: skip
def test_urls_that_are_allowed_are_still_https_and_public(tmp_path, url):
    job = Job(QUICK, str(tmp_path), "cpu", allow_urls=True)
    row = read_picture(new_row(Item(url, url, "one"), job), job)
    assert row["content"] == b"" and "this URL" in row["error"]


def test_a_full_or_closed_output_folder_is_a_sentence(tmp_path):
    (tmp_path / "out").write_text("a file where a folder should be")
    job = Job(QUICK, str(tmp_path / "out"), "cpu")
    item = Item("a.png", str(tmp_path / "a.png"), "a")
    row = {**new_row(item, job), "error": "", "seconds_read": 0.0, "seconds_made": 0.0,
           "outputs": ["model_file"], "names": ["a.glb"],
           "contents": [b"x"], "metrics": "{}"}  # fmt: skip
    done = export(row, job)
    assert done["status"] == "failed" and "could not be written" in done["error"]


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_the_table_can_be_read_back(tmp_path, format):
    item = Item('a, "b".png', "/a.png", "a")
    job = Job(QUICK, str(tmp_path), "cpu")
    rows = [
        result_row(new_row(item, job), "", 1.5, {"faces": 500, "seed": 42}, {"video": "a/a.mp4"}),
        result_row(new_row(item, job), "a sentence"),
    ]
    path = write_results(rows, tmp_path, format)
    if format == "jsonl":
        back = [json.loads(line) for line in path.read_text().splitlines()]
    elif format == "parquet":
        back = parquet.read_table(path).to_pylist()
    else:
        from pyarrow import csv

        back = csv.read_csv(path).to_pylist()
        assert [row["source"] for row in back] == [item.source] * 2
        assert [row["seconds"] for row in back] == [1.5, 0.0]
        return
    assert back == rows
    assert [path.name for path in tmp_path.iterdir()] == [f"results.{format}"]
