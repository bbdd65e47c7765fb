"""Hostile pictures: what a stranger may send, through the real service.

    python benchmarks/hostile_pictures.py [--check] [--write] [--mutants 2000]

About fifty hand-made kinds, and mutants of ten sound pictures with some bytes changed, cut or
doubled. Each must end in an asset or in a 4xx sentence, within five seconds; the gate, which opens
them first, stays small, and neither it nor the worker ends.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from table import RELIABILITY_PAGE, Figure, finish, parser

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.rest_server import RestServer  # noqa: E402 (the tests' helpers are no package)

OPTIONS = {"decimation_target": 500, "texture_size": 256, "generate_video": False}
HEAVY = ("megapixels", "without end")  # words in the names of kinds that take seconds


def subject(size: int = 96, mode: str = "RGB") -> Image.Image:
    """A red thing with a blue spot on light grey, or on nothing."""
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0) if "A" in mode else (220, 220, 220, 255))
    draw, unit = ImageDraw.Draw(image), size / 96
    draw.ellipse([20 * unit, 14 * unit, 76 * unit, 82 * unit], fill=(190, 45, 35, 255))
    draw.ellipse([30 * unit, 28 * unit, 46 * unit, 44 * unit], fill=(40, 70, 180, 255))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes], color: int = 2) -> bytes:
    """A PNG with this header and these chunks, whatever they are."""
    head = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", head), *chunks, (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + content))
        parts.append(struct.pack(">I", len(content)) + name + content + check)
    return b"".join(parts)


def with_chunk(name: bytes, content: bytes) -> bytes:
    """A sound PNG with one more chunk behind its header."""
    sound = saved(subject(), "PNG")
    check = struct.pack(">I", zlib.crc32(name + content))
    return sound[:33] + struct.pack(">I", len(content)) + name + content + check + sound[33:]


def zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def cut(kind: str, share: float = 0.6, **options) -> bytes:
    content = saved(subject(), kind, **options)
    return content[: int(len(content) * share)]


def frames(kind: str, count: int, **options) -> bytes:
    images = [subject().rotate(7 * number) for number in range(count)]
    return saved(images[0], kind, save_all=True, append_images=images[1:], **options)


def noise(size: tuple[int, int] = (128, 128)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (*size, 3), np.uint8))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def scans_without_end() -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = saved(Image.new("RGB", (6000, 6000), (200, 30, 30)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 300 + b"\xff\xd9"


def looped_tiff() -> bytes:
    content = bytearray(saved(subject(), "TIFF"))
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * count, first)
    return bytes(content)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("picture.png", saved(subject(), "PNG"))
    return buffer.getvalue()


def with_alpha(value: int) -> bytes:
    image = subject()
    image.putalpha(value)
    return saved(image, "PNG")


def of_floats(value: float) -> bytes:
    return saved(Image.fromarray(np.full((64, 64), value, np.float32)), "TIFF")


def changed(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


KINDS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"\x00",
    "text": lambda: b"a picture of a chair " * 50,
    "web page": lambda: b"<!doctype html><html><img src=x onerror=alert(1)></html>",
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/hosts"/></svg>',
    "svg with entities": lambda: b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "">]><svg/>',
    "pdf": lambda: b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
    "heic": lambda: b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200),
    "video": lambda: b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(200),
    "zip": zipped,
    "png and zip in one": lambda: saved(subject(), "PNG") + zipped(),
    "glb": lambda: b"glTF" + struct.pack("<II", 2, 12),
    "json": lambda: b'{"image": "data:image/png;base64,"}',
    "psd": lambda: b"8BPS\x00\x01" + bytes(100),
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run",
    "ico": lambda: saved(subject(64), "ICO"),
    "pcx": lambda: saved(subject(), "PCX"),
    "ppm": lambda: saved(subject(), "PPM"),
    "png cut short": lambda: cut("PNG"),
    "jpeg cut short": lambda: cut("JPEG"),
    "webp cut short": lambda: cut("WEBP"),
    "gif cut short": lambda: cut("GIF"),
    "tiff cut short": lambda: cut("TIFF"),
    "bmp cut short": lambda: cut("BMP"),
    "avif cut short": lambda: cut("AVIF"),
    "png of a wrong checksum": lambda: changed(saved(subject(), "PNG"), 60, b"\x00\xff"),
    "png without pixels": lambda: png(64, 64),
    "png of ten gigapixels": lambda: png(100_000, 100_000, (b"IDAT", zeros(10_000_000))),
    "png larger than its header": lambda: png(64, 64, (b"IDAT", zeros(50_000_000))),
    "png of no size": lambda: png(0, 0, (b"IDAT", zeros(10))),
    "png with a text bomb": lambda: with_chunk(b"zTXt", b"a\x00\x00" + zeros(200_000_000)),
    "png with a profile bomb": lambda: with_chunk(b"iCCP", b"a\x00\x00" + zeros(200_000_000)),
    "png with a broken profile": lambda: with_chunk(b"iCCP", b"a\x00\x00" + zeros(128)),
    "50 megapixels of png": lambda: saved(Image.new("L", (7000, 7000), 90), "PNG"),
    "50 megapixels of webp": lambda: saved(Image.new("RGB", (7000, 7000), (9, 90, 9)), "WEBP"),
    "50 megapixels with alpha": lambda: saved(subject(7050, "RGBA"), "PNG", compress_level=1),
    "50 megapixels of jpeg": lambda: saved(subject(7050), "JPEG", progressive=True, subsampling=0),
    "30 megapixels of webp": lambda: saved(subject(5580), "WEBP", method=0),
    "30 megapixels of avif": lambda: saved(subject(5580), "AVIF", speed=10),
    "animated gif": lambda: frames("GIF", 300),
    "animated png": lambda: frames("PNG", 20),
    "animated webp": lambda: frames("WEBP", 20),
    "tiff of many pages": lambda: frames("TIFF", 20),
    "several pictures in a jpeg": lambda: frames("MPO", 3),
    "cmyk jpeg": lambda: saved(subject(mode="CMYK"), "JPEG"),
    "lab tiff": lambda: saved(subject(mode="LAB"), "TIFF"),
    "16 bits of grey": lambda: saved(
        Image.fromarray(np.asarray(subject(mode="L")).astype(np.uint16) * 257), "PNG"
    ),
    "32 bits of grey": lambda: saved(subject(mode="L").convert("I"), "TIFF"),
    "floats": lambda: saved(subject(mode="L").convert("F"), "TIFF"),
    "floats that are no numbers": lambda: of_floats(float("nan")),
    "floats without bounds": lambda: of_floats(float("inf")),
    "palette with transparency": lambda: saved(subject(mode="P"), "PNG", transparency=0),
    "one bit": lambda: saved(subject(mode="1"), "PNG"),
    "turned by exif": lambda: saved(subject(), "JPEG", exif=exif(6)),
    "turned by senseless exif": lambda: saved(subject(), "JPEG", exif=exif(77)),
    "broken exif": lambda: saved(subject(), "JPEG", exif=b"Exif\x00\x00II*\x00" + b"\xff" * 80),
    "1 x 1": lambda: saved(Image.new("RGB", (1, 1)), "PNG"),
    "1 x 20000": lambda: saved(Image.new("RGB", (1, 20000)), "PNG"),
    "20000 x 1": lambda: saved(Image.new("RGB", (20000, 1)), "PNG"),
    "alpha all 0": lambda: with_alpha(0),
    "alpha all 255": lambda: with_alpha(255),
    "alpha all 1": lambda: with_alpha(1),
    "noise": lambda: saved(noise(), "PNG"),
    "one colour": lambda: saved(Image.new("RGB", (128, 128), (9, 9, 9)), "PNG"),
    "tiff that points to itself": looped_tiff,
    "scans without end": scans_without_end,
    "webp of a size beyond all": lambda: (
        b"RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + b"\xff" * 6
    ),
}  # fmt: skip

SEEDS: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved(subject(), "PNG"),
    "png with alpha": lambda: saved(subject(mode="RGBA"), "PNG"),
    "png with palette": lambda: saved(subject(mode="P"), "PNG", transparency=0),
    "jpeg": lambda: saved(subject(), "JPEG", exif=exif(6)),
    "progressive jpeg": lambda: saved(subject(), "JPEG", progressive=True),
    "webp": lambda: saved(subject(), "WEBP"),
    "lossless webp": lambda: saved(subject(mode="RGBA"), "WEBP", lossless=True),
    "gif": lambda: saved(subject(mode="P"), "GIF"),
    "tiff": lambda: saved(subject(), "TIFF", compression="tiff_lzw"),
    "avif": lambda: saved(subject(), "AVIF"),
}


def mutants(count: int, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of `count` mutants, of each seed in turn; the same ones every time."""
    draw = np.random.default_rng(seed)
    sound = {name: make() for name, make in SEEDS.items()}
    for number in range(count):
        name = list(sound)[number % len(sound)]
        content = bytearray(sound[name])
        for _ in range(int(draw.integers(1, 12))):
            # half of the changes near the beginning, where the structure is
            reach = len(content) if draw.random() < 0.5 else min(120, len(content))
            content[int(draw.integers(reach))] = int(draw.integers(256))
        way = draw.random()
        if way < 0.1:
            content = content[: int(draw.integers(1, len(content)))]
        elif way < 0.2:
            at = int(draw.integers(len(content)))
            content[at:at] = content[at : at + int(draw.integers(1, 200))]
        yield f"{name} #{number}", bytes(content)


class Watcher:
    """Peak memory of the gate, and how often it was started anew."""

    def __init__(self, server: RestServer):
        self.peak_mb, self.processes = 0.0, set()
        self._parent, self._over = server.process.pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for process in children(self._parent):
                try:
                    words = Path(f"/proc/{process}/cmdline").read_bytes()
                    if b"onelook.service.gate" in words:
                        status = Path(f"/proc/{process}/status").read_text()
                        self.processes.add(process)
                        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
                        self.peak_mb = max(self.peak_mb, peak)
                except (OSError, TypeError):
                    continue


def children(parent: int) -> list[int]:
    """Ids of the processes that this one, any of its threads, has started."""
    found = []
    for thread in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(process) for process in thread.read_text().split()]
    return found


def judge(server: RestServer, name: str, content: bytes) -> tuple[int, float, str]:
    """-> status code, seconds, and what is wrong with the answer: "" where nothing is."""
    begin = time.perf_counter()
    answer = server.create(content, **OPTIONS)
    seconds = time.perf_counter() - begin
    if answer.code == 200:
        model = server.request("GET", answer.body["model_url"]).content
        server.request("DELETE", f"/api/v1/outputs/{answer.body['job_id']}")
        return 200, seconds, "" if model[:4] == b"glTF" else f"{name}: no model"
    sentence = answer.body.get("detail", "")
    if not 400 <= answer.code < 500 or not sentence or "/" in sentence.replace("JPEG/", ""):
        return answer.code, seconds, f"{name}: {answer.code} {sentence}"
    return answer.code, seconds, ""


def main() -> int:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--mutants", type=int, default=2000)
    arguments = made.parse_args()
    codes, slowest, wrong = Counter(), {}, []
    with tempfile.TemporaryDirectory() as folder, RestServer(Path(folder)) as server:
        watcher, worker = Watcher(server), server.worker_pid()
        pictures = [(name, make()) for name, make in KINDS.items()]
        for name, content in (*pictures, *mutants(arguments.mutants)):
            code, seconds, complaint = judge(server, name, content)
            codes[code] += 1
            slowest[name] = seconds
            if complaint:
                wrong.append(complaint)
            if seconds > 2:
                print(f"{seconds:.1f} s: {name}: {code}", file=sys.stderr)
        left = [name for name in server.files() if "/" in name]
        restarts = int(server.worker_pid() != worker)
        watcher.stop()
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    figures = [
        Figure("pictures", sum(codes.values()), at_least=arguments.mutants + 30),
        Figure("hand-made kinds", len(KINDS), at_least=30),
        Figure("answered with an asset", codes[200]),
        Figure("answered 4xx with a sentence", sum(codes.values()) - codes[200] - len(wrong)),
        Figure("answered otherwise", len(wrong), at_most=0),
        Figure("slowest", max(slowest.values()), "s", at_most=5),
        Figure("slowest mutant", max(s for name, s in slowest.items() if "#" in name), "s"),
        Figure("median", float(np.median(list(slowest.values()))), "s"),
        Figure("gate: peak memory", watcher.peak_mb, "MB", at_most=600),
        Figure("gate: processes that ended", len(watcher.processes) - 1, at_most=0),
        Figure("worker: processes that ended", restarts, at_most=0),
        Figure("files left", len(left), at_most=0),
    ]
    return finish("hostile_pictures", figures, arguments, RELIABILITY_PAGE)


if __name__ == "__main__":
    sys.exit(main())
