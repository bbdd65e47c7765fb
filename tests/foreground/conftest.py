"""Painted objects with a known outline, and backgrounds to put them on."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

# rembg imports a matting library whose first import compiles for most of a minute; no test uses it.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

Array = np.ndarray

SIDE = 360
SUPERSAMPLED = 4


@dataclass(frozen=True)
class Painted:
    """colours (S, S, 3) float32 0..1, also beyond the outline; alpha (S, S) float32 0..1."""

    colours: Array
    alpha: Array

    def on(self, background: Array) -> Array:
        """The photograph: (S, S, 3) uint8."""
        a = self.alpha[..., None]
        mixed = self.colours * a + background * (1 - a)
        return (np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8)

    def rgba(self) -> Array:
        """The true cut-out: (S, S, 4) uint8."""
        return (np.dstack([self.colours, self.alpha]) * 255 + 0.5).astype(np.uint8)


def _clouds(random: np.random.Generator, cells: int) -> Array:
    coarse = random.random((cells + 2, cells + 2, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), 0, 1)


def _shape(draw) -> Array:
    """Draw in units of the side on a supersampled canvas -> alpha (S, S)."""
    size = SIDE * SUPERSAMPLED
    canvas = np.zeros((size, size), np.uint8)
    draw(canvas, lambda *values: tuple(int(v * size) for v in values))
    small = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _painted(alpha: Array, colour: tuple, random: np.random.Generator) -> Painted:
    """Shaded from the upper left, with a blotchy texture."""
    height = cv2.GaussianBlur(alpha, (0, 0), 0.04 * SIDE)
    tilt = cv2.Sobel(height, cv2.CV_32F, 1, 0) + cv2.Sobel(height, cv2.CV_32F, 0, 1)
    light = 0.75 + np.clip(tilt * 0.02 * SIDE, -0.4, 0.25)
    texture = 0.8 * np.float32(colour) + 0.2 * _clouds(random, 12)
    return Painted(np.clip(texture * light[..., None], 0, 1), alpha)


def _mug(canvas, at):
    cv2.rectangle(canvas, at(0.25, 0.22), at(0.65, 0.8), 255, -1)
    (width,) = at(0.06)
    cv2.ellipse(canvas, at(0.65, 0.5), at(0.17, 0.18), 0, -90, 90, 255, width)


def _tripod(canvas, at):
    (width,) = at(0.022)
    for foot in (0.2, 0.5, 0.8):
        cv2.line(canvas, at(0.5, 0.3), at(foot, 0.88), 255, width)
    cv2.circle(canvas, at(0.5, 0.24), at(0.13)[0], 255, -1)


def _ring(canvas, at):
    cv2.circle(canvas, at(0.5, 0.5), at(0.36)[0], 255, -1)
    cv2.circle(canvas, at(0.5, 0.5), at(0.15)[0], 0, -1)


def _ball(canvas, at):
    cv2.circle(canvas, at(0.5, 0.5), at(0.33)[0], 255, -1)


def _hairy(canvas, at):
    random = np.random.default_rng(3)
    cv2.circle(canvas, at(0.5, 0.5), at(0.28)[0], 255, -1)
    for angle in random.uniform(0, 2 * np.pi, 900):
        lean = angle + random.normal(0, 0.4)
        root = 0.5 + 0.27 * np.array([np.cos(angle), np.sin(angle)])
        tip = root + random.uniform(0.02, 0.05) * np.array([np.cos(lean), np.sin(lean)])
        cv2.line(canvas, at(*root), at(*tip), 255, 2)


def _objects() -> dict[str, Painted]:
    random = np.random.default_rng(1)
    kinds = {
        "mug": (_mug, (0.2, 0.45, 0.7)),
        "tripod": (_tripod, (0.12, 0.12, 0.15)),
        "ring": (_ring, (0.85, 0.55, 0.15)),
        "ball": (_ball, (0.8, 0.25, 0.2)),
        "hairy": (_hairy, (0.45, 0.3, 0.15)),
    }
    return {name: _painted(_shape(draw), colour, random) for name, (draw, colour) in kinds.items()}


def _backgrounds() -> dict[str, Array]:
    random = np.random.default_rng(5)
    one = np.ones((SIDE, SIDE, 3), np.float32)
    down = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    gradient = np.float32([0.75, 0.8, 0.9]) * (1 - down) + np.float32([0.35, 0.3, 0.4]) * down
    gradient = gradient * one

    def noise():
        return random.normal(0, 12 / 255, one.shape).astype(np.float32)

    return {
        "white": one,
        "grey": 0.5 * one,
        "gradient": gradient,
        "grey, noise": 0.5 * one + noise(),
        "gradient, noise": gradient + noise(),
        "clouds": _clouds(random, 5),
    }


def _overlap(one: Array, other: Array) -> float:
    """Intersection over union of two alphas at one half."""
    one, other = one > 0.5, other > 0.5
    return float((one & other).sum() / (one | other).sum())


def _png(image: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def studio() -> SimpleNamespace:
    """objects and backgrounds by name, `overlap(alpha, alpha)` and `png(image)`."""
    return SimpleNamespace(
        objects=_objects(), backgrounds=_backgrounds(), overlap=_overlap, png=_png, side=SIDE
    )


@pytest.fixture(autouse=True)
def no_network_model(monkeypatch, tmp_path_factory):
    """A model on the developer's machine must not change what these tests see."""
    empty = tmp_path_factory.mktemp("rembg")
    monkeypatch.setenv("REMBG_HOME", str(empty))
    monkeypatch.setenv("XDG_DATA_HOME", str(empty))
    monkeypatch.delenv("U2NET_HOME", raising=False)
    monkeypatch.delenv("ONELOOK_REMBG_MODEL", raising=False)
