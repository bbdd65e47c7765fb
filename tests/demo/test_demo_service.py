"""The page with a running REST service as its engine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from helpers.pictures import mushroom_png

from onelook.demo.board import Board
from onelook.demo.makers import LocalMaker, ServiceMaker
from onelook.demo.run import Run
from onelook.errors import OnelookError
from onelook.options import Options

KEY = "a-long-test-key"  # of the service in conftest.py
QUICK = Options(model="relief", texture_size=256, decimation_target=2000, generate_video=False)


@pytest.fixture
def maker(service: str) -> ServiceMaker:
    return ServiceMaker(service, KEY)


def write_picture(folder: Path, content: bytes | None = None) -> Path:
    path = folder / "picture.png"
    path.write_bytes(content or mushroom_png(256))
    return path


def test_a_service_makes_the_files_an_engine_makes(maker, tmp_path):
    picture, board = write_picture(tmp_path), Board()
    (tmp_path / "far").mkdir()
    far = maker.make([picture], QUICK, tmp_path / "far", board)
    near = LocalMaker("cpu").make([picture], QUICK, tmp_path / "near", Board())
    assert {name: path.read_bytes() for name, path in far.files.items()} == {
        name: path.read_bytes() for name, path in near.files.items()
    }
    assert far.metrics["faces"] == near.metrics["faces"]
    assert board.overall == 1.0 and board.notes


def test_a_refused_picture_gets_the_services_sentence(maker, tmp_path):
    picture = write_picture(tmp_path, b"no picture at all, but long enough to be one")
    with pytest.raises(OnelookError, match="not a picture"):
        maker.make([picture], QUICK, tmp_path, Board())


def test_stopping_cancels_the_job(maker, service, tmp_path):
    picture = write_picture(tmp_path)
    slow = Options(model="relief", texture_size=8192, video_size=1024)
    board = Board()
    run = Run(lambda: maker.make([picture], slow, tmp_path, board))
    deadline = time.monotonic() + 30
    while not board.overall and time.monotonic() < deadline:
        time.sleep(0.05)
    run.stop()
    assert run.wait(20) and run.made is None and run.error is None
    assert list(tmp_path.iterdir()) == [picture]
    (tmp_path / "next").mkdir()
    assert maker.make([picture], QUICK, tmp_path / "next", Board()).files


def test_a_wrong_key_or_address_is_said_in_a_sentence(service, tmp_path):
    picture = write_picture(tmp_path)
    with pytest.raises(OnelookError, match="key"):
        ServiceMaker(service, "wrong").make([picture], QUICK, tmp_path, Board())
    with pytest.raises(OnelookError, match="does not answer"):
        ServiceMaker("http://127.0.0.1:9").make([picture], QUICK, tmp_path, Board())
