"""What happens on the page.

A visitor's mistake ends in one sentence, ours in a sentence with an id for the operator's log.
"""

from __future__ import annotations

import logging
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from onelook.demo.board import Board, finished_html, running_html, sentence_html
from onelook.demo.controls import read_controls
from onelook.demo.makers import Made, Maker
from onelook.demo.run import Run
from onelook.demo.sessions import Session, Sessions
from onelook.errors import OnelookError, OptionError
from onelook.options import Options

SHOW_SECONDS = 0.5  # between two looks at a run
PICTURES = ("preview_image", "contact_sheet", "views_image")
RESULTS = ("model", "video", "pictures", "files", "archive", "seed_used", "reuse")
_UNSEEN = "The viewer shows GLB without Draco; the file is in the list of downloads."
_FULL = "Too many visitors are waiting; try again in a minute."
_FILMS_SHOWN = (".mp4", ".webm")
_log = logging.getLogger(__name__)

Update = dict[str, Any]


class Events:
    """The page's handlers; an Update has the page's own names of what it changes."""

    def __init__(self, maker: Maker, sessions: Sessions, max_waiting: int):
        self._maker = maker
        self._sessions = sessions
        self._max_waiting = max_waiting

    def cut_out(self, visitor: str, picture: str | None, preprocess: bool) -> Update:
        """The picture without its background, as the models will see it."""
        if picture is None:
            return {"cut_out": None, "status": sentence_html("Choose a picture to begin.")}
        session = self._session(visitor, picture)
        options = Options(
            preprocess_image=preprocess,
            generate_model=False,
            generate_video=False,
            return_no_background=True,
        )
        folder = session.new_folder("cut-out")
        try:
            made = self._maker.make([Path(picture)], options, folder, Board())
        except Exception as error:
            return {"cut_out": None, "status": sentence_html(_sentence(error), "error")}
        ready = sentence_html("Ready: choose the settings and press Generate.")
        return {"cut_out": str(made.files["no_background_image"]), "status": ready}

    def begin(self, visitor: str) -> Update:
        """The button was pressed; from now on the visitor waits for a turn.

        Raises gradio.Error, which the page shows, where too many wait already.
        """
        if not self._sessions.start_waiting(visitor, self._max_waiting):
            raise gr.Error(_FULL, print_exception=False)
        return {"status": sentence_html("Waiting for a free place …"), **_buttons(is_running=True)}

    def generate(
        self, visitor: str, picture: str | None, views: list[str] | None, values: list[Any]
    ) -> Iterator[Update]:
        """Progress while it works, then how it ended."""
        session = self._session(visitor, *filter(None, [picture, *(views or ())]))
        session.is_waiting = False
        session.forget()
        try:
            if picture is None:
                raise OptionError("Choose a picture first.")
            options = read_controls(values).with_drawn_seed()
        except OnelookError as error:
            yield {"status": sentence_html(_sentence(error), "error"), **_buttons(is_running=False)}
            return
        folder, board = session.new_folder("run"), Board()
        pictures = [Path(picture), *map(Path, views or ())]
        run = session.run = Run(lambda: self._maker.make(pictures, options, folder, board))
        yield {"status": running_html(board), **_no_results(), **_buttons(is_running=True)}
        try:
            while not run.is_over:
                board.wait(SHOW_SECONDS)
                yield {"status": running_html(board)}
                run.wait(SHOW_SECONDS / 2)
        finally:
            run.stop()  # the page went away in the middle
        board.finish()
        yield {"status": _end(run, board), **_buttons(is_running=False)}

    def results(self, visitor: str) -> Update:
        """The files of the run that has just ended, if it made any.

        An event of its own, because Gradio sends the last word of `generate` twice, and its viewer
        shows nothing when it is told the same file again while it still loads itself.
        """
        made = self._sessions.of(visitor).made
        return (_results(made) if made else {}) | _buttons(is_running=False)

    def cancel(self, visitor: str) -> Update:
        """Stop the visitor's run, or take it out of the queue."""
        session = self._sessions.of(visitor)
        session.is_waiting = False
        session.stop()
        return {"status": sentence_html("Stopped."), **_buttons(is_running=False)}

    def reuse_seed(self, seed: str) -> Update:
        """The seed of the last run as the next one's."""
        return {"seed": int(seed), "randomize_seed": False}

    def leave(self, visitor: str) -> None:
        """The page was closed."""
        self._sessions.leave(visitor)

    def _session(self, visitor: str, *uploads: str) -> Session:
        session = self._sessions.of(visitor)
        session.uploads.update(map(Path, uploads))
        return session


def _end(run: Run[Made], board: Board) -> str:
    if run.error is not None:
        return sentence_html(_sentence(run.error), "error")
    if run.made is None:
        return sentence_html("Stopped.")
    figures = run.made.metrics
    by = f" by {figures['model']}" if "model" in figures else ""
    faces = f", {figures['faces']:,} faces" if "faces" in figures else ""
    unseen = "" if _shown_model(run.made) or "model_file" not in run.made.files else _UNSEEN
    done = f"Done in {figures.get('seconds.total', 0.0):.1f} s{by}{faces}."
    return finished_html(board, f"{done} {unseen}".strip())


def _results(made: Made) -> Update:
    film = made.files.get("video")
    playable = film if film and film.suffix in _FILMS_SHOWN else None
    pictures = [made.files[name] for name in PICTURES if name in made.files]
    if film and not playable:
        pictures.append(film)
    model = _shown_model(made)
    return {
        "model": model and str(model),
        "video": playable and str(playable),
        "pictures": gr.update(value=list(map(str, pictures)), visible=bool(pictures)),
        "files": list(map(str, made.files.values())),
        "archive": gr.update(value=str(_archive(made)), interactive=True),
        "seed_used": str(made.metrics["seed"]),
        "reuse": gr.update(interactive=True),
    }


def _shown_model(made: Made) -> Path | None:
    """What the viewer can show without fetching a decoder from elsewhere."""
    model = made.files.get("model_file")
    compressed = made.metrics.get("options.geometry_compression", "none") != "none"
    return model if model and model.suffix == ".glb" and not compressed else None


def _archive(made: Made) -> Path:
    """All files in one ZIP, not compressed again."""
    first = next(iter(made.files.values()))
    path = first.with_name("onelook.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in made.files.values():
            archive.write(file, file.name)
    return path


def _no_results() -> Update:
    return {
        **dict.fromkeys(RESULTS),
        "pictures": gr.update(value=None, visible=False),
        "archive": gr.update(value=None, interactive=False),
        "reuse": gr.update(interactive=False),
    }


def _buttons(is_running: bool) -> Update:
    return {
        "generate": gr.update(interactive=not is_running),
        "cancel": gr.update(interactive=is_running),
    }


def _sentence(error: Exception) -> str:
    """What the visitor reads; whatever was not meant for visitors goes to the log."""
    if isinstance(error, OnelookError):
        return str(error)
    identifier = secrets.token_hex(4)
    _log.error("a run broke (%s)", identifier, exc_info=error)
    return f"Something went wrong on our side; the operator finds the reason under {identifier}."
