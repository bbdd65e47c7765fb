"""The page: what stands where, and which event it sets off.

Everything it shows comes from this machine: fonts are the system's, the viewer is Gradio's own, and
nothing is reported to anybody. Files are served from folders that nobody can guess.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from onelook.demo.board import sentence_html
from onelook.demo.controls import add_controls
from onelook.demo.events import RESULTS, Events
from onelook.demo.makers import Maker
from onelook.demo.sessions import Sessions

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.png"))
# Gradio's viewer tries WebGPU wherever the browser has the word for it, and where that fails, only
# after an error turns to WebGL. What it shows needs no more than WebGL.
_WEBGL = "<script>delete Navigator.prototype.gpu</script>"
LAUNCH = {  # what belongs to the page's look, and to nobody but the visitor knowing of it
    "theme": gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ),
    "css_paths": Path(__file__).with_name("page.css"),
    "head": _WEBGL,
    "share": False,
    "ssr_mode": False,
    "run_history": False,
    "pwa": False,
    "mcp_server": False,
    "enable_monitoring": False,
    "max_file_size": "25mb",
    "footer_links": [],
}
_TITLE = "onelook: one picture in, a textured 3D model out"
_PRIVATE = {"api_visibility": "private"}


def build_page(maker: Maker, folder: Path, max_waiting: int = 16) -> gr.Blocks:
    """The page, ready to be launched with `LAUNCH`.

    folder: takes the visitors' files. max_waiting: visitors that may wait for their turn.
    """
    files = folder / "visitors"
    uploads = folder / "uploads"
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    sessions = Sessions(files, uploads)
    gr.set_static_paths([files, *EXAMPLES])
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        parts = _lay_out()
        _connect(page, parts, Events(maker, sessions, max_waiting))
    # Gradio's own limit is for whoever does not go through the page.
    page.queue(max_size=4 * max_waiting, api_open=False)
    return page


def _lay_out() -> dict[str, Any]:
    """The components by name; the options' under "options"."""
    gr.Markdown("# onelook\nOne picture in, a textured 3D model out.")
    parts: dict[str, Any] = {}
    with gr.Row():
        with gr.Column(scale=5, min_width=340):
            parts |= _input_column()
        with gr.Column(scale=6, min_width=380):
            parts |= _result_column()
    return parts


def _input_column() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row():
        parts["picture"] = gr.Image(
            label="Picture of one object",
            sources=["upload", "clipboard"],
            image_mode=None,
            type="filepath",
            height=300,
            elem_id="picture",
        )
        # An upload is handed on as it came, to the one decoder that trusts nothing. Not by a
        # subclass: Gradio writes a .pyi beside the source of every subclass of a component.
        parts["picture"].preprocess = lambda upload: upload.path if upload else None
        parts["cut_out"] = gr.Image(
            label="Cut-out",
            interactive=False,
            type="filepath",
            format="png",
            height=300,
            buttons=["fullscreen"],
            elem_id="cut-out",
        )
    with gr.Row():
        parts["generate"] = gr.Button("Generate", variant="primary", elem_id="generate")
        parts["cancel"] = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel")
    if EXAMPLES:  # they do not come with the installed package
        gr.Examples(
            list(map(str, EXAMPLES)),
            parts["picture"],
            cache_examples=False,
            api_visibility="private",
            elem_id="examples",
        )
    parts["options"] = add_controls()
    with gr.Accordion("Advanced: further pictures of the object", open=False):
        parts["views"] = gr.File(
            label="For models that take several views; others ignore them",
            file_count="multiple",
            file_types=["image"],
            elem_id="views",
        )
    return parts


def _result_column() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["status"] = gr.HTML(sentence_html("Choose a picture to begin."), elem_id="status")
    parts["model"] = gr.Model3D(
        label="3D model (drag to turn, wheel to zoom)",
        interactive=False,
        height=420,
        clear_color=(0.93, 0.94, 0.95, 1.0),
        elem_id="model",
    )
    parts["video"] = gr.Video(
        label="Turntable", interactive=False, autoplay=True, loop=True, height=320, elem_id="video"
    )
    parts["pictures"] = gr.Gallery(
        label="Pictures", visible=False, interactive=False, columns=2, elem_id="pictures"
    )
    parts["files"] = gr.File(
        label="Downloads", file_count="multiple", interactive=False, elem_id="files"
    )
    with gr.Row(equal_height=True):
        parts["archive"] = gr.DownloadButton(
            "Download everything (ZIP)", interactive=False, elem_id="archive"
        )
        parts["seed_used"] = gr.Textbox(label="Seed used", interactive=False, elem_id="seed-used")
        parts["reuse"] = gr.Button("Use this seed again", interactive=False, elem_id="reuse")
    return parts


def _connect(page: gr.Blocks, parts: dict[str, Any], events: Events) -> None:
    options = parts["options"]
    outputs = [part for name, part in parts.items() if name not in ("options", "views", "picture")]

    def named(update: dict[str, Any]) -> dict[Any, Any]:
        return {parts.get(name) or options[name]: value for name, value in update.items()}

    def cut_out(request: gr.Request, picture: str | None, preprocess: bool) -> dict[Any, Any]:
        return named(events.cut_out(str(request.session_hash), picture, preprocess))

    def generate(
        request: gr.Request, picture: str | None, views: list[str] | None, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        for update in events.generate(str(request.session_hash), picture, views, list(values)):
            yield named(update)

    def begin(request: gr.Request) -> dict[Any, Any]:
        return named(events.begin(str(request.session_hash)))

    def results(request: gr.Request) -> dict[Any, Any]:
        return named(events.results(str(request.session_hash)))

    def cancel(request: gr.Request) -> dict[Any, Any]:
        return named(events.cancel(str(request.session_hash)))

    def leave(request: gr.Request) -> None:
        events.leave(str(request.session_hash))

    gr.on(
        [parts["picture"].change, options["preprocess_image"].change],
        cut_out,
        [parts["picture"], options["preprocess_image"]],
        [parts["cut_out"], parts["status"]],
        concurrency_limit=2,
        show_progress_on=parts["cut_out"],
        trigger_mode="always_last",
        **_PRIVATE,
    )
    controls = [parts[name] for name in ("status", "generate", "cancel")]
    running = (
        parts["generate"]
        .click(begin, None, controls, concurrency_limit=None, show_progress="hidden", **_PRIVATE)
        .success(
            generate,
            [parts["picture"], parts["views"], *options.values()],
            outputs,
            concurrency_limit=1,
            concurrency_id="engine",
            show_progress="minimal",
            show_progress_on=parts["status"],
            **_PRIVATE,
        )
    )
    running.then(
        results,
        None,
        [*controls, *(parts[name] for name in RESULTS)],
        queue=False,
        show_progress="hidden",
        **_PRIVATE,
    )
    parts["cancel"].click(
        cancel,
        None,
        controls,
        cancels=[running],
        queue=False,
        show_progress="hidden",
        **_PRIVATE,
    )
    parts["reuse"].click(
        lambda seed: named(events.reuse_seed(seed)),
        parts["seed_used"],
        [options["seed"], options["randomize_seed"]],
        queue=False,
        show_progress="hidden",
        **_PRIVATE,
    )
    page.unload(leave)
