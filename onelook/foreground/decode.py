"""Decode a picture that a stranger sent.

Everything is checked before memory is spent: the file's length, its format against a short list,
and width and height as the header states them. Whatever is wrong ends in a `PictureError` that says
what came and what is expected; a file that is cut short is refused, never half used.

H rows, W columns.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from onelook.errors import PictureError

Array = np.ndarray

MAX_BYTES = 25 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 32
MAX_ASPECT = 8

# Pillow's readers that are allowed. JPEG includes MPO, the multi-picture JPEG of phones.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
FORMAT_NAMES = "PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF"

# A progressive JPEG may hold thousands of scans, each a pass over the whole picture for few bytes.
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS

MAX_VERIFIED_BYTES = 500_000_000  # what `verify_picture` may take to load a picture

MAX_PROFILE_BYTES = 4 * 2**20  # CMYK profiles of printers have up to about 2.5 MB

# EXIF 2.32, tag 0x0112: what brings the stored picture upright.
_UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}

_DAMAGED = "The picture is damaged or cut short; save it again and send the whole file."

# One picture at a time: it bounds memory, and warning filters belong to the whole process.
_decoding = threading.Lock()


def decode_picture(source: Path | bytes) -> Array:
    """A picture file, or its bytes -> (H, W, 4) uint8, sRGB, straight alpha, upright.

    Animations and multi-page files give their first frame. 16-bit and float samples are scaled to
    8 bits; an embedded ICC profile is converted to sRGB. Opaque pictures get alpha 255.
    Raises PictureError when the source is not one of `FORMATS`, is damaged or cut short, has more
    than `MAX_BYTES` or `MAX_PIXELS`, a side under `MIN_SIDE` pixels, or is more elongated than
    `MAX_ASPECT`:1.
    """
    content = _read(source)
    with _decoding, _as_picture_errors(content), _opened(content) as picture:
        pixels = _to_rgba(picture)
        upright = _UPRIGHT.get(_orientation(picture))
        return np.ascontiguousarray(upright(pixels) if upright else pixels)


def verify_picture(source: Path | bytes) -> None:
    """Raise the PictureError that `decode_picture` would, within half a gigabyte.

    The picture is read to its end but not converted, and of one whose reader would need more
    memory only the header is read: what that leaves unseen, `decode_picture` finds.
    """
    content = _read(source)
    with _decoding, _as_picture_errors(content):
        with Image.open(BytesIO(content), formats=FORMATS) as picture:
            if _bytes_to_load(picture) > MAX_VERIFIED_BYTES:
                _check_header(picture, content)
                return
        with _opened(content):
            pass


@contextmanager
def _as_picture_errors(content: bytes) -> Iterator[None]:
    """Whatever is raised inside becomes a PictureError about this content."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (PictureError, KeyboardInterrupt):
            raise
        except Image.DecompressionBombError as error:
            raise PictureError(_too_many_pixels()) from error
        except UnidentifiedImageError as error:
            raise PictureError(_unreadable(content)) from error
        except Exception as error:  # on hostile bytes Pillow's readers raise a dozen kinds
            raise PictureError(_DAMAGED) from error


def _read(source: Path | bytes) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        content, size = bytes(source[: MAX_BYTES + 1]), len(source)
    else:
        try:
            path = Path(source)
            if not path.is_file():
                raise PictureError("The picture's file does not exist or is not a regular file.")
            size = path.stat().st_size
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except (OSError, TypeError, ValueError) as error:
            if isinstance(error, PictureError):
                raise
            raise PictureError("The picture's file cannot be read.") from error
    if not content:
        raise PictureError(f"The picture is empty (0 bytes); expected {FORMAT_NAMES}.")
    if len(content) > MAX_BYTES:
        raise PictureError(
            f"The picture has {max(size, len(content)) / 2**20:.1f} MB; at most"
            f" {MAX_BYTES // 2**20} MB are accepted: save it smaller."
        )
    return content


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The picture, loaded after its header was found acceptable."""
    with Image.open(BytesIO(content), formats=FORMATS) as picture:
        _check_header(picture, content)
        picture.load()
        _check_size(*picture.size)
        yield picture


def _check_header(picture: Image.Image, content: bytes) -> None:
    _check_size(*picture.size)
    _check_cost(picture, content)


def _bytes_to_load(picture: Image.Image) -> int:
    """About the memory that Pillow's reader of this format takes, the picture included."""
    each = 4
    if picture.format in ("WEBP", "AVIF"):
        each = 16  # two canvases and a copy; planes of 16 bits
    elif picture.info.get("progressive"):
        each = 4 + 2 * len(picture.getbands())  # all coefficients
    return each * picture.width * picture.height


def _too_many_pixels(size: str = "") -> str:
    limit = f"{MAX_PIXELS // 10**6} megapixels"
    return f"The picture has more than {limit}{size}, the most that is accepted: scale it down."


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PictureError(_too_many_pixels(f" ({width} x {height} pixels)"))
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise PictureError(
            f"The picture is {width} x {height} pixels; its shorter side must have at least"
            f" {MIN_SIDE}."
        )
    if long > MAX_ASPECT * short:
        raise PictureError(
            f"The picture is {width} x {height} pixels; its longer side may be at most"
            f" {MAX_ASPECT} times the shorter one: crop it to the object."
        )


def _check_cost(picture: Image.Image, content: bytes) -> None:
    """Refuse files whose header is modest and whose decoding is not."""
    pixels = picture.width * picture.height
    if picture.format in ("JPEG", "MPO"):
        scans = content.count(b"\xff\xda")  # entropy-coded bytes never hold this pair
        if scans * pixels > MAX_SCANNED_PIXELS:
            raise PictureError(
                f"The picture is a JPEG of {scans} scans, too many to decode at this size; save it"
                " again as an ordinary JPEG or PNG."
            )
    if picture.format == "TIFF":
        tile_width, tile_height = (int(picture.tag_v2.get(tag, 1)) for tag in (322, 323))
        if tile_width * tile_height > MAX_PIXELS:
            raise PictureError(_DAMAGED)


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where the metadata is missing or broken, as viewers do."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block is no reason to refuse a sound picture
        return 1


def _to_rgba(picture: Image.Image) -> Array:
    """A loaded picture of any mode -> (H, W, 4) uint8 sRGB."""
    if picture.mode == "I" or picture.mode == "F" or picture.mode.startswith("I;16"):
        return _deep_gray(picture)
    key = picture.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # a 16-bit PNG's colour key; samples were halved
        picture.info["transparency"] = tuple(value >> 8 for value in key)
    if key is not None or picture.mode == "PA":
        picture = _keep_info(picture, "RGBA")
    elif picture.mode in ("La", "RGBa"):
        picture = _keep_info(picture, picture.mode[:-1] + "A")
    elif picture.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        picture = _keep_info(picture, "RGB")
    if picture.mode not in ("LA", "RGBA"):
        rgb = np.asarray(_to_srgb(picture))
        return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    alpha = np.asarray(picture.getchannel("A"))
    return np.dstack([np.asarray(_to_srgb(_keep_info(picture, picture.mode[:-1]))), alpha])


def _keep_info(picture: Image.Image, mode: str) -> Image.Image:
    """Convert to another mode; the colour profile stays known."""
    converted = picture.convert(mode)
    converted.info["icc_profile"] = picture.info.get("icc_profile")
    return converted


def _to_srgb(picture: Image.Image) -> Image.Image:
    """L, RGB, CMYK or LAB without alpha -> RGB in sRGB; a senseless profile is ignored."""
    source = None
    if picture.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif profile := picture.info.get("icc_profile"):
        source = _profile(profile, picture.mode)
    if source is None:
        return picture.convert("RGB")
    try:
        return ImageCms.profileToProfile(
            picture,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except ImageCms.PyCMSError:
        return picture.convert("RGB")


def _profile(content: bytes, mode: str) -> ImageCms.ImageCmsProfile | None:
    """The profile, if it can be read, describes this mode and is not sRGB already."""
    if not isinstance(content, bytes) or len(content) > MAX_PROFILE_BYTES:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(content))
        space = profile.profile.xcolor_space.strip()
        name = profile.profile.profile_description or ""
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if space != {"L": "GRAY"}.get(mode, mode) or name.startswith("sRGB"):
        return None
    return profile


def _deep_gray(picture: Image.Image) -> Array:
    """One channel of 16 or 32 bits, integer or float -> (H, W, 4) uint8, scaled, not clipped."""
    samples = np.asarray(picture).astype(np.float32)
    if not np.isfinite(samples).all():
        raise PictureError("The picture holds values that are not numbers; save it as 8-bit PNG.")
    low, high = min(float(samples.min()), 0.0), float(samples.max())
    if picture.mode.startswith("I;16"):
        bits = picture.tag_v2.get(258, (16,))[0] if picture.format == "TIFF" else 16
        full = 2.0 ** min(int(bits), 16) - 1
    else:  # the file does not say what white is: the smallest usual range that holds the values
        usual = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
        full = next((top for top in usual if high <= top), high)
    gray = np.clip((samples - low) * (255.0 / max(full - low, 1e-30)) + 0.5, 0, 255)
    gray = gray.astype(np.uint8)
    key = picture.info.get("transparency")
    alpha = np.where(samples == key, 0, 255) if isinstance(key, int) else np.full(gray.shape, 255)
    return np.dstack([gray, gray, gray, alpha.astype(np.uint8)])


# What people send by mistake: first bytes (lower-cased, leading blanks cut) -> its name.
_STRANGERS = (
    (b"%pdf", "a PDF document"),
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"8bps", "a Photoshop document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"gltf", "a 3D model"),
    (b"ply\n", "a 3D model"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cjxl ", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cjp  ", "a JPEG 2000 picture"),
    (b"data:", "a data URI as text"),
    (b"http", "an address as text"),
    (b"{", "a JSON text"),
)
_KNOWN_STARTS = (b"\x89png", b"\xff\xd8\xff", b"gif8", b"bm", b"ii*\x00", b"mm\x00*", b"ii+\x00")


def _unreadable(content: bytes) -> str:
    """The sentence for bytes that none of the allowed readers takes."""
    start = content[:4096].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower()
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    if start.startswith(_KNOWN_STARTS) or start[8:12] == b"webp" or brand == b"avif":
        return _DAMAGED
    name = next((name for magic, name in _STRANGERS if start.startswith(magic)), "")
    if brand:
        heic = brand[:2] in (b"he", b"mi", b"ms")
        name = "a HEIC photograph" if heic else "a video"
    elif start.startswith(b"<?xml") and b"<svg" in start:
        name = "an SVG drawing"
    if name:
        return f"The file is {name}; expected {FORMAT_NAMES}: convert it and send it again."
    return f"The file is not a picture of a known format; expected {FORMAT_NAMES}."
