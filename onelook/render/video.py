"""Films as files: MP4 or WebM that plays in browsers, or an animated GIF or WebP.

H rows, W columns.
"""

from __future__ import annotations

import io
import os
import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from onelook.files import write_whole

Array = np.ndarray
_QUEUED_FRAMES = 8


# x264's macroblock tree reads beyond rows that are no whole number of its vectors, and its choices
# then differ from run to run. At other widths it is left out, which makes films a quarter larger.
STEADY_WIDTH = 256


@dataclass(frozen=True)
class _Codec:
    """How PyAV is asked for a codec; thread counts are fixed, for they change the bytes."""

    encoder: str
    container: str
    options: dict[str, str]


_CODECS = {
    "h264": _Codec("libx264", "mp4", {"preset": "veryfast", "threads": "2"}),
    "vp9": _Codec("libvpx-vp9", "webm", {"b": "0", "row-mt": "1", "cpu-used": "4", "threads": "2"}),
    "av1": _Codec("libsvtav1", "mp4", {"preset": "9", "svtav1-params": "lp=2"}),
}


def write_video(
    frames: Iterable[Array],
    path: str | os.PathLike[str],
    fps: int = 30,
    codec: str = "h264",
    crf: int = 18,
) -> None:
    """Encode frames (H, W, 3 or 4) uint8 sRGB as they come, in a thread of its own.

    codec "h264" and "av1" write MP4 with its index first, so that players can start at once; "vp9"
    writes WebM. The picture is yuv420p with bt709 tags; alpha is dropped. H and W must be even.
    crf: the codec's quality scale, lower is better. The same frames give the same bytes. The file
    appears under its name only when it is complete.
    Raises ValueError for unknown codecs, odd sizes, frames that differ in size and no frames, and
    OutputError when the file cannot be written.
    """
    if codec not in _CODECS:
        raise ValueError(f"codec must be one of {', '.join(_CODECS)}, got {codec!r}")
    encoder = _Encoder(_CODECS[codec], fps, crf)
    waiting: queue.Queue[Array | None] = queue.Queue(_QUEUED_FRAMES)
    failures: list[BaseException] = []

    def encode() -> None:
        try:
            while (frame := waiting.get()) is not None:
                if not failures:
                    encoder.add(frame)
        except BaseException as failure:
            failures.append(failure)
            while waiting.get() is not None:
                pass

    # An interrupt may come while the thread starts, too; a daemon never holds up the exit.
    thread = threading.Thread(target=encode, name="encode video", daemon=True)
    try:
        thread.start()
        for frame in frames:
            if failures:
                break
            waiting.put(frame)
    finally:
        waiting.put(None)
        if thread.is_alive():
            thread.join()
    if failures:
        raise failures[0]
    write_whole(path, encoder.finish())


def write_animation(frames: Iterable[Array], path: str | os.PathLike[str], fps: int = 15) -> None:
    """An endless animation of frames (H, W, 3 or 4) uint8: GIF or WebP, by the path's suffix.

    GIF has 256 colours a frame and no soft edges; WebP keeps alpha. Raises ValueError for another
    suffix or no frames, and OutputError when the file cannot be written.
    """
    from PIL import Image

    kind = {".gif": "GIF", ".webp": "WEBP"}.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(
            f"an animation's name must end in .gif or .webp, got {Path(path).suffix!r}"
        )
    pictures = [Image.fromarray(np.asarray(frame)) for frame in frames]
    if not pictures:
        raise ValueError("an animation needs at least one frame")
    options: dict[str, Any] = {"duration": round(1000 / fps), "loop": 0}
    if kind == "WEBP":
        options |= {"quality": 85, "method": 2}
    else:
        pictures = [picture.convert("RGB").quantize(255) for picture in pictures]
    memory = io.BytesIO()
    pictures[0].save(memory, kind, save_all=True, append_images=pictures[1:], **options)
    write_whole(path, memory.getvalue())


class _Encoder:
    """Frames in, the bytes of a film out. Everything stays in memory: a film is a few megabytes."""

    def __init__(self, codec: _Codec, fps: int, crf: int):
        self._codec, self._fps, self._crf = codec, fps, crf
        self._memory = io.BytesIO()
        self._container: Any = None
        self._stream: Any = None
        self._size = (0, 0)

    def add(self, frame: Array) -> None:
        import av

        if self._container is None:
            self._open(*frame.shape[:2])
        if frame.shape[:2] != self._size:
            raise ValueError(f"frames must keep their size {self._size}, got {frame.shape[:2]}")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[..., :3]), format="rgb24")
        picture = picture.reformat(
            format="yuv420p",
            dst_colorspace="ITU709",
            src_color_range="JPEG",
            dst_color_range="MPEG",
        )
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def finish(self) -> bytes:
        if self._container is None:
            raise ValueError("a video needs at least one frame")
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()
        return self._memory.getvalue()

    def _open(self, height: int, width: int) -> None:
        import av

        if height % 2 or width % 2:
            raise ValueError(f"a video's width and height must be even, got {width} x {height}")
        self._size = (height, width)

        def reopen(url: str, flags: int, options: dict) -> io.BytesIO:
            return io.BytesIO(self._memory.getvalue())  # read back to move the index to the front

        options = {"movflags": "+faststart"} if self._codec.container == "mp4" else {}
        self._container = av.open(
            self._memory,
            "w",
            format=self._codec.container,
            options={**options, "fflags": "+bitexact"},
            io_open=reopen,
        )
        choices = {**self._codec.options, "crf": str(self._crf)}
        if self._codec.encoder == "libx264" and width % STEADY_WIDTH:
            choices["x264-params"] = "no-mbtree=1"
        self._stream = self._container.add_stream(
            self._codec.encoder, rate=self._fps, options=choices
        )
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, self._fps)
        context.color_primaries = context.color_trc = context.colorspace = 1  # bt709
        context.color_range = 1  # limited
