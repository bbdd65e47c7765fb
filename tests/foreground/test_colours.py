"""Colours at edges and beyond: exact where they can be, never the background's."""

from __future__ import annotations

import numpy as np
import pytest

from onelook.foreground.colours import pull_push, spread_colours, subject_colours
from onelook.foreground.matting import soft_alpha


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (64, 64), (37, 90)])
def test_pull_push_keeps_what_is_known_and_fills_the_rest(size):
    random = np.random.default_rng(0)
    colours = random.random((*size, 3)).astype(np.float32)
    weights = (random.random(size) < 0.3).astype(np.float32)
    weights.flat[0] = 1
    filled = pull_push(colours, weights)
    known = weights == 1
    assert np.allclose(filled[known], colours[known], atol=1e-6)
    low, high = colours[known].min(axis=0), colours[known].max(axis=0)
    assert (filled >= low - 1e-5).all() and (filled <= high + 1e-5).all()


def test_one_known_colour_fills_everything():
    colours = np.zeros((50, 80, 3), np.float32)
    colours[20, 30] = (0.2, 0.5, 0.9)
    weights = np.zeros((50, 80), np.float32)
    weights[20, 30] = 1
    for filled in (pull_push(colours, weights), spread_colours(colours, weights)):
        assert np.allclose(filled, (0.2, 0.5, 0.9), atol=1e-4)


def test_fill_is_nearer_to_the_nearer_colour():
    colours = np.zeros((32, 128, 1), np.float32)
    colours[:, -1] = 1
    weights = np.zeros((32, 128), np.float32)
    weights[:, 0] = weights[:, -1] = 1
    row = pull_push(colours, weights)[16, :, 0]
    assert row[10] < 0.2 and row[-11] > 0.8 and 0.3 < row[64] < 0.7


def test_no_known_colour_gives_zeros():
    assert (pull_push(np.ones((9, 9, 3), np.float32), np.zeros((9, 9), np.float32)) == 0).all()


def soft_disc(size: int, blur: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.clip((0.3 * size - np.hypot(x, y)) / blur + 0.5, 0, 1).astype(np.float32)


@pytest.mark.parametrize("blur", [1.5, 6.0, 20.0])
def test_the_background_is_taken_out_of_soft_edges(blur):
    front, back = np.float32([200, 60, 40]), np.float32([40, 180, 90])
    alpha = soft_disc(160, blur)
    rgb = alpha[..., None] * front + (1 - alpha[..., None]) * back
    got = subject_colours((rgb + 0.5).astype(np.uint8), alpha)
    seen = alpha > 0.05
    assert np.abs(got[seen] - front).max() <= 8


def test_alpha_of_a_soft_disc_is_recovered_from_a_coarse_mask():
    front, back = np.float32([200, 60, 40]), np.float32([40, 180, 90])
    alpha = soft_disc(400, 8.0)
    rgb = (alpha[..., None] * front + (1 - alpha[..., None]) * back + 0.5).astype(np.uint8)
    coarse = (alpha[2::4, 2::4] > 0.5).astype(np.float32)
    got = soft_alpha(rgb, coarse, reach=0.03)
    assert np.abs(got - alpha).max() < 0.12
    assert np.abs(got - alpha).mean() < 0.004


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_without_an_outline_stays_as_it_is(value):
    rgb = np.full((40, 60, 3), 90, np.uint8)
    mask = np.full((20, 30), value, np.float32)
    assert (soft_alpha(rgb, mask, reach=0.03) == value).all()
