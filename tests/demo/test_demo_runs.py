"""What lies behind the page: controls for every option, runs that stop, sessions that vanish."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("gradio")

import gradio as gr
from helpers.pictures import mushroom_png

from onelook.demo.board import Board, finished_html, running_html, sentence_html
from onelook.demo.controls import add_controls, read_controls
from onelook.demo.makers import LocalMaker, ServiceMaker
from onelook.demo.run import Run
from onelook.demo.sessions import Sessions
from onelook.errors import OptionError, PictureError
from onelook.options import Options, option_fields


def test_every_option_has_a_control_with_its_default_and_limits():
    with gr.Blocks(analytics_enabled=False):
        controls = add_controls()
    assert list(controls) == [option.name for option in option_fields()]
    assert read_controls([control.value for control in controls.values()]) == Options()
    for option in option_fields():
        control, limits = controls[option.name], option.metadata
        assert control.info == limits["help"]
        if limits["choices"]:
            assert [value for _, value in control.choices] == list(limits["choices"])
        elif limits["minimum"] is not None:
            assert (control.minimum, control.maximum) == (limits["minimum"], limits["maximum"])


def test_a_control_out_of_range_is_refused_with_a_sentence():
    values = [option.default for option in option_fields()]
    values[1] = -1
    with pytest.raises(OptionError, match="seed must be a whole number from 0 to 2147483647"):
        read_controls(values)


def test_a_run_can_be_stopped_between_two_steps_and_runs_its_clean_up():
    cleaned = []

    def work() -> None:
        try:
            while True:
                sum(range(100))
        finally:
            cleaned.append(True)

    run = Run(work)
    assert not run.wait(0.05)
    run.stop()
    assert run.wait(2)
    assert run.made is None and run.error is None and cleaned == [True]
    run.stop()  # harmless


def test_a_run_keeps_what_it_made_or_its_error():
    made = Run(lambda: 7)
    assert made.wait(2) and made.made == 7

    def fail() -> None:
        raise PictureError("not a picture")

    failed = Run(fail)
    assert failed.wait(2) and isinstance(failed.error, PictureError)


def test_a_stopped_engine_leaves_nothing_and_works_again(tmp_path):
    maker, board = LocalMaker("cpu"), Board()
    picture = tmp_path / "picture.png"
    picture.write_bytes(mushroom_png(256))
    folder = tmp_path / "files"
    slow = Options(model="relief", texture_size=4096, decimation_target=200_000)
    run = Run(lambda: maker.make([picture], slow, folder, board))
    while not any(stage.name == "shape" for stage in board.stages) and not run.is_over:
        time.sleep(0.005)
    run.stop()
    assert run.wait(10) and run.made is None and run.error is None
    assert not folder.exists()
    quick = Options(model="relief", texture_size=256, decimation_target=500, generate_video=False)
    made = maker.make([picture], quick, folder, Board())
    assert [path.name for path in folder.iterdir()] == ["output.glb"]
    assert made.metrics["faces"] == 500


def test_sessions_are_unguessable_and_swept(tmp_path):
    uploads = tmp_path / "uploads"
    sessions = Sessions(tmp_path / "visitors", uploads, idle_seconds=0.2)
    one = sessions.of("../../etc")
    first = one.new_folder("run")
    (first / "output.glb").write_bytes(b"x")
    assert first.parent.parent.parent == sessions.root and len(one.folder.name) == 32
    assert one.new_folder("run") != first and not first.exists()
    assert sessions.of("../../etc") is one
    time.sleep(0.3)
    sessions.of("another")
    assert not one.folder.exists()
    sessions.leave("another")
    sessions.leave("another")
    assert list(sessions.root.iterdir()) == []


def test_leaving_removes_what_was_sent_and_nothing_else(tmp_path):
    """An example lies in a folder of the project: that one stays."""
    sent, example = tmp_path / "uploads" / "a1" / "my.png", tmp_path / "examples" / "coffee.png"
    for picture in (sent, example):
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b"x")
    sessions = Sessions(tmp_path / "visitors", tmp_path / "uploads")
    sessions.of("one").uploads.update([sent, example])
    sessions.leave("one")
    assert example.exists() and not sent.parent.exists()


def test_a_picture_that_two_visitors_sent_stays_until_both_have_left(tmp_path):
    sessions = Sessions(tmp_path / "visitors", tmp_path / "uploads")
    picture = tmp_path / "uploads" / "hash" / "cup.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"x")
    for visitor in ("one", "two"):
        sessions.of(visitor).uploads.add(picture)
    sessions.leave("one")
    assert picture.exists()
    sessions.leave("two")
    assert not picture.exists()


def test_only_so_many_visitors_may_wait(tmp_path):
    sessions = Sessions(tmp_path / "visitors", tmp_path / "uploads")
    assert sessions.start_waiting("one", 2) and sessions.start_waiting("two", 2)
    assert sessions.start_waiting("two", 2), "who waits already is not counted twice"
    assert not sessions.start_waiting("three", 2)
    sessions.leave("one")
    assert sessions.start_waiting("three", 2)


def test_the_board_shows_stages_and_escapes_what_it_is_told():
    board = Board()
    board.advance("cut out", 0.1)
    board.advance("<b>shape</b>", 0.5)
    board.note("a <script> in a note")
    html = running_html(board)
    assert "Working: 50 %" in html and "width:50%" in html
    assert "&lt;b&gt;shape&lt;/b&gt; …" in html and "<script>" not in html
    assert "cut out <span>" in html
    board.finish()
    assert 'class="now"' not in finished_html(board, "Done.")
    assert "<img" not in sentence_html("<img src=x>", "error")


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://", ""])
def test_a_service_must_be_a_web_address(url):
    with pytest.raises(OptionError, match="http:// or https://"):
        ServiceMaker(url)
