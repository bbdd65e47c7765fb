"""`verify_picture` reads what it can afford to read, and refuses as `decode_picture` does."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from onelook.errors import PictureError
from onelook.foreground import decode
from onelook.foreground.decode import decode_picture, verify_picture


def _noise(kind: str, **options) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (200, 180, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_a_picture_cut_short_is_refused_by_both_alike(kind):
    content = _noise(kind)
    verify_picture(content)
    with pytest.raises(PictureError) as decoded:
        decode_picture(content[: len(content) * 2 // 3])
    with pytest.raises(PictureError) as verified:
        verify_picture(content[: len(content) * 2 // 3])
    assert str(verified.value) == str(decoded.value)


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7", b"<svg/>", bytes(500), _noise("PNG")[:20]])
def test_what_is_no_picture_is_refused_in_the_same_words(content):
    with pytest.raises(PictureError) as decoded:
        decode_picture(content)
    with pytest.raises(PictureError) as verified:
        verify_picture(content)
    assert str(verified.value) == str(decoded.value)


def test_only_the_header_is_read_where_the_rest_would_take_much_memory(monkeypatch):
    content = _noise("JPEG", progressive=True)
    cut = content[: len(content) * 2 // 3]
    with pytest.raises(PictureError, match="damaged"):
        verify_picture(cut)
    need = (4 + 2 * 3) * 200 * 180  # bytes: the picture, and its coefficients in three bands
    monkeypatch.setattr(decode, "MAX_VERIFIED_BYTES", need - 1)
    verify_picture(cut)
    monkeypatch.setattr(decode, "MAX_VERIFIED_BYTES", need)
    with pytest.raises(PictureError, match="damaged"):
        verify_picture(cut)
