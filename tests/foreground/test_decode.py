"""Every picture a stranger can send ends in an array or in a PictureError with one sentence."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from onelook.errors import PictureError
from onelook.foreground import decode
from onelook.foreground.decode import decode_picture

WIDTH, HEIGHT = 96, 64


def scene() -> np.ndarray:
    """(64, 96, 3) uint8: smooth, and different in every corner, so that a turn cannot hide."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    red, green = columns * 255 // (WIDTH - 1), rows * 255 // (HEIGHT - 1)
    return np.dstack([red, green, (red + green) // 2]).astype(np.uint8)


def encode(picture: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of these chunks, with right checksums."""
    packed = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + packed


def png_of(samples: np.ndarray, depth: int, color_type: int, *extra: tuple[bytes, bytes]) -> bytes:
    """samples (H, W, C) big-endian or uint8 -> PNG of that depth, with extra chunks before IDAT."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    end = [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return png([(b"IHDR", header), *extra, *end])


def rgba(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
        ("WEBP", {"quality": 95}, 10),
        ("AVIF", {"quality": 95}, 10),
    ],
)
def test_colours_survive(kind, options, tolerance):
    got = decode_picture(encode(scene(), kind, **options))
    assert got.dtype == np.uint8 and got.shape == (HEIGHT, WIDTH, 4)
    assert np.abs(got.astype(int) - rgba(scene())).max() <= tolerance


def test_a_path_and_its_bytes_agree(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encode(scene(), "PNG"))
    assert np.array_equal(decode_picture(path), decode_picture(path.read_bytes()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_turns_the_picture_upright(kind, orientation):
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)  # what the camera did before
    stored = {
        1: scene(),
        2: np.fliplr(scene()),
        3: np.rot90(scene(), 2),
        4: np.flipud(scene()),
        5: scene().transpose(1, 0, 2),
        6: np.rot90(scene(), -1),
        7: np.rot90(scene(), 2).transpose(1, 0, 2),
        8: np.rot90(scene(), 1),
    }[undo]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    options = {"quality": 95} if kind == "JPEG" else lossless
    got = decode_picture(encode(np.ascontiguousarray(stored), kind, exif=exif, **options))
    assert got.shape == (HEIGHT, WIDTH, 4)
    assert np.abs(got[..., :3].astype(int) - scene()).max() <= (6 if kind == "JPEG" else 0)


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, WIDTH * HEIGHT).astype(">u2").reshape(HEIGHT, WIDTH, 1)
    want = ramp[..., 0].astype(float) / 257
    files = [
        png_of(ramp, 16, 0),
        png_of(np.repeat(ramp, 3, 2), 16, 2),
        encode(Image.fromarray(ramp[..., 0].astype(np.uint16)), "TIFF"),
    ]
    for content in files:
        got = decode_picture(content)
        assert np.abs(got[..., :3] - want[..., None]).max() <= 1
        assert (got[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("samples", "white"),
    [
        (np.linspace(0, 1, WIDTH * HEIGHT, dtype=np.float32), 1.0),
        (np.linspace(0, 255, WIDTH * HEIGHT, dtype=np.float32), 255.0),
        (np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.int32), 65535.0),
        (np.linspace(0, 9e8, WIDTH * HEIGHT).astype(np.int32), 9e8),
    ],
)
def test_float_and_wide_integers_are_scaled(samples, white):
    samples = samples.reshape(HEIGHT, WIDTH)
    got = decode_picture(encode(Image.fromarray(samples), "TIFF"))
    assert np.abs(got[..., 0] - samples * (255 / white)).max() <= 1


def test_alpha_of_every_mode():
    gray = scene()[..., 0]
    alpha = scene()[..., 1]
    cases = {
        "RGBA": encode(np.dstack([scene(), alpha]), "PNG"),
        "LA": encode(Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)]), "PNG"),
        "RGBA webp": encode(np.dstack([scene(), alpha]), "WEBP", lossless=True, exact=True),
        "RGBA tiff": encode(np.dstack([scene(), alpha]), "TIFF"),
        "RGBA16": png_of(np.dstack([scene(), alpha]).astype(">u2") * 257, 16, 6),
        "LA16": png_of(np.dstack([gray, alpha]).astype(">u2") * 257, 16, 4),
    }
    for name, content in cases.items():
        want = np.dstack([gray] * 3) if name.startswith("LA") else scene()
        got = decode_picture(content)
        assert np.array_equal(got[..., 3], alpha), name
        assert np.array_equal(got[..., :3], want), name


@pytest.mark.parametrize(
    ("depth", "channels", "key"),
    [(8, 1, (10,)), (8, 3, (10, 20, 30)), (16, 1, (2570,)), (16, 3, (2570, 5140, 7710))],
)
def test_a_colour_key_is_transparent(depth, channels, key):
    samples = np.full((HEIGHT, WIDTH, channels), 200 if depth == 8 else 51400, f">u{depth // 8}")
    samples[:20] = key
    trns = (b"tRNS", struct.pack(f">{channels}H", *key))
    got = decode_picture(png_of(samples, depth, 0 if channels == 1 else 2, trns))
    assert (got[:20, :, 3] == 0).all() and (got[20:, :, 3] == 255).all()
    assert (got[20:, :, :3] == 200).all()


def test_palettes():
    indices = Image.fromarray(scene()).quantize(16)
    want = np.asarray(indices.convert("RGB"))
    opaque = decode_picture(encode(indices, "PNG"))
    assert np.array_equal(opaque, rgba(want))
    several = decode_picture(encode(indices, "PNG", transparency=bytes(range(0, 160, 10))))
    assert np.array_equal(several[..., 3], np.asarray(indices) * 10)
    single = decode_picture(encode(indices, "GIF", transparency=3))
    assert np.array_equal(single[..., 3] == 0, np.asarray(indices) == 3)


def test_one_bit_and_cmyk():
    bits = decode_picture(encode(Image.fromarray(scene()).convert("1"), "PNG"))
    assert set(np.unique(bits[..., :3])) == {0, 255}
    cmyk = Image.fromarray(scene()).convert("CMYK")
    for kind, tolerance in [("TIFF", 1), ("JPEG", 12)]:
        options = {"quality": 95} if kind == "JPEG" else {}
        got = decode_picture(encode(cmyk, kind, **options))
        assert np.abs(got[..., :3].astype(int) - scene()).max() <= tolerance


def test_lab_is_converted():
    lab = ImageCms.profileToProfile(
        Image.fromarray(scene()),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    got = decode_picture(encode(lab, "TIFF"))
    assert np.abs(got[..., :3].astype(int) - scene()).mean() < 3


def swapped_profile() -> bytes:
    """An sRGB profile whose red and green primaries are exchanged."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = content.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    return swapped.replace(b"s\0R\0G\0B", b"s\0W\0A\0P")  # its name, in UTF-16


def test_a_colour_profile_is_converted_to_srgb():
    got = decode_picture(encode(scene(), "PNG", icc_profile=swapped_profile()))
    want = scene()[..., [1, 0, 2]].astype(int)
    assert np.abs(got[..., :3] - want).max() <= 3


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 400, swapped_profile()[:200]])
def test_a_broken_profile_is_ignored(profile):
    got = decode_picture(encode(scene(), "PNG", icc_profile=profile))
    assert np.array_equal(got, rgba(scene()))


def test_a_profile_of_another_colour_space_is_ignored():
    gray = Image.fromarray(scene()[..., 0])
    got = decode_picture(encode(gray, "PNG", icc_profile=swapped_profile()))
    assert np.array_equal(got[..., 0], scene()[..., 0])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_animations_give_their_first_frame(kind):
    first, second = Image.new("RGB", (64, 48), (200, 40, 40)), Image.new("RGB", (64, 48), "blue")
    got = decode_picture(encode(first, kind, save_all=True, append_images=[second] * 3))
    assert np.abs(got[..., :3].astype(int) - (200, 40, 40)).max() <= 8


def test_broken_exif_does_not_refuse_a_sound_picture():
    content = encode(scene(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40)
    assert decode_picture(content).shape == (HEIGHT, WIDTH, 4)


def flat_png(width: int, height: int) -> bytes:
    """A PNG whose header states this size; its pixels are missing or few."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png([(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")])


def many_scans() -> bytes:
    """A sound 4 megapixel JPEG with one of its scans repeated 300 times."""
    content = encode(np.zeros((2000, 2000), np.uint8), "JPEG", progressive=True)
    scan = content[content.rfind(b"\xff\xda") : -2]
    return content[:-2] + scan * 300 + b"\xff\xd9"


def huge_tiles() -> bytes:
    """A 64 x 64 TIFF of tiles that would take 400 million pixels each."""
    entries = [
        (256, 4, 64),
        (257, 4, 64),
        (258, 3, 8),
        (259, 3, 5),
        (262, 3, 1),
        (277, 3, 1),
        (322, 4, 20000),
        (323, 4, 20000),
        (324, 4, 8),
        (325, 4, 100),
    ]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0" * 200


def webp_header(width: int, height: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0"
    body += struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "one byte": (lambda: b"\x89", "not a picture"),
    "zeros": (lambda: bytes(5000), "not a picture"),
    "random": (lambda: np.random.default_rng(0).bytes(5000), "not a picture"),
    "too long": (lambda: encode(scene(), "PNG") + bytes(decode.MAX_BYTES), "25 MB"),
    "html": (lambda: b"\n <!DOCTYPE html><html></html>", "a web page"),
    "svg": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"),
    "pdf": (lambda: b"%PDF-1.7\n1 0 obj\n", "a PDF"),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), "a ZIP"),
    "heic": (lambda: HEIC, "a HEIC photograph"),
    "mp4": (lambda: b"\0\0\0\x18ftypisom" + bytes(64), "a video"),
    "glb": (lambda: b"glTF\x02\0\0\0" + bytes(64), "a 3D model"),
    "psd": (lambda: b"8BPS\0\x01" + bytes(64), "a Photoshop document"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "not a pict"),
    "text": (lambda: b"ein Bild, versprochen" * 50, "not a picture"),
    "jpeg 2000": (lambda: encode(scene(), "JPEG2000"), "JPEG 2000"),
    "icon": (lambda: encode(scene(), "ICO"), "not a picture"),
    "png header bomb": (lambda: flat_png(60000, 60000), "50 megapixels"),
    "png just too large": (lambda: flat_png(7072, 7071), r"7072 x 7071"),
    "png zero wide": (lambda: flat_png(0, 64), "damaged|0 x 64"),
    "webp header bomb": (lambda: webp_header(16000, 16000), "damaged|megapixels"),
    "jpeg scans": (many_scans, "scans"),
    "tiff tiles": (huge_tiles, "damaged"),
    "1 x 1": (lambda: encode(np.zeros((1, 1, 3), np.uint8), "PNG"), "1 x 1 pixels"),
    "1 x 20000": (lambda: encode(np.zeros((20000, 1), np.uint8), "PNG"), "1 x 20000 pixels"),
    "31 wide": (lambda: encode(np.zeros((64, 31, 3), np.uint8), "JPEG"), "at least 32"),
    "9 to 1": (lambda: encode(np.zeros((40, 360, 3), np.uint8), "BMP"), "at most 8 times"),
    "not numbers": (
        lambda: encode(Image.fromarray(np.full((64, 64), np.nan, np.float32)), "TIFF"),
        "not numbers",
    ),
    "png header only": (lambda: encode(scene(), "PNG")[:33], "damaged"),
    "png signature only": (lambda: encode(scene(), "PNG")[:8], "damaged"),
}
for _kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"):
    REFUSED[f"{_kind} cut in half"] = (
        lambda kind=_kind: (content := encode(scene().repeat(4, 0).repeat(4, 1), kind))[
            : len(content) // 2
        ],
        "damaged",
    )


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_sentence(name):
    make, words = REFUSED[name]
    content = make()
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(PictureError, match=words) as caught:
        decode_picture(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - start < 5
    assert peak < 3 * len(content) + 5e6
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and "/" not in sentence


@pytest.mark.parametrize("place", ["missing.png", ".", "bad\0name"])
def test_a_path_that_is_no_picture_file(tmp_path, place):
    with pytest.raises(PictureError, match="file") as caught:
        decode_picture(tmp_path / place)
    assert str(tmp_path) not in str(caught.value)


def test_limits_are_inclusive():
    assert decode_picture(encode(np.zeros((32, 256), np.uint8), "PNG")).shape == (32, 256, 4)


def seeds() -> list[bytes]:
    small = scene()
    alpha = np.dstack([small, small[..., 0]])
    return [
        encode(small, "PNG"),
        encode(alpha, "PNG"),
        encode(small, "PNG", icc_profile=swapped_profile()),
        encode(Image.fromarray(small).quantize(16), "PNG"),
        encode(small, "JPEG"),
        encode(small, "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
        encode(alpha, "WEBP"),
        encode(small, "GIF"),
        encode(small, "BMP"),
        encode(small, "TIFF"),
        encode(small, "TIFF", compression="tiff_lzw"),
        encode(small, "AVIF", speed=10),
    ]


def mutant(content: bytes, random: np.random.Generator) -> bytes:
    """A few bytes changed, half of the time near the start where headers are."""
    changed = bytearray(content)
    reach = len(changed) if random.random() < 0.5 else min(len(changed), 120)
    for place in random.integers(0, reach, random.integers(1, 8)):
        changed[place] = random.choice([0, 1, 127, 128, 255, random.integers(256)])
    if random.random() < 0.15:
        start = random.integers(0, len(changed))
        del changed[start : start + random.integers(1, 60)]
    return bytes(changed)


def test_mutants_end_in_an_array_or_a_picture_error(recwarn):
    random = np.random.default_rng(7)
    originals = seeds()
    decoded = refused = 0
    for number in range(360):
        content = mutant(originals[number % len(originals)], random)
        start = time.perf_counter()
        try:
            got = decode_picture(content)
        except PictureError:
            refused += 1
        else:
            decoded += 1
            assert got.dtype == np.uint8 and got.ndim == 3 and got.shape[2] == 4
        assert time.perf_counter() - start < 5
    assert decoded > 30 and refused > 100  # both ends were reached
    assert not recwarn.list


def test_truncated_pictures_stay_refused():
    decode_picture(encode(scene(), "PNG"))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
