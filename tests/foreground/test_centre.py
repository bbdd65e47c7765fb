"""The subject sits in the middle of its square, pixel for pixel, with colour all around."""

from __future__ import annotations

import numpy as np
import pytest

from onelook.foreground.centre import centre, extend_colours, pad_to_square


def spot(height: int, width: int, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    """A rectangle of random opaque pixels on transparent black."""
    image = np.zeros((height, width, 4), np.uint8)
    pixels = np.random.default_rng(0).integers(1, 256, (*size, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    image[top : top + size[0], left : left + size[1]] = pixels
    return image


@pytest.mark.parametrize("place", [(0, 0), (30, 11), (60, 100)])
@pytest.mark.parametrize("size", [(40, 20), (21, 50), (33, 33)])
def test_the_subject_is_moved_to_the_middle_and_not_resampled(place, size):
    image = spot(100, 150, *place, size)
    square = centre(image)
    side = int(1.2 * max(size))
    assert square.shape == (side, side, 4)
    rows, columns = np.nonzero(square[..., 3])
    assert abs(rows.min() - (side - 1 - rows.max())) <= 1
    assert abs(columns.min() - (side - 1 - columns.max())) <= 1
    moved = square[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert np.array_equal(
        moved, image[place[0] : place[0] + size[0], place[1] : place[1] + size[1]]
    )


def test_faint_haze_does_not_move_the_middle():
    image = spot(100, 100, 30, 30, (40, 40))
    image[95:, :, 3] = 30
    assert centre(image).shape == (48, 48, 4)


def test_soft_parts_beyond_the_margin_are_not_cut_off():
    image = spot(100, 100, 40, 40, (20, 20))
    image[5:40, 48:52, 3] = 100  # a lock of hair
    square = centre(image)
    assert (square[..., 3] == 100).sum() == (image[..., 3] == 100).sum()


def test_a_subject_that_is_soft_everywhere_is_found():
    image = spot(100, 100, 20, 50, (30, 30))
    image[..., 3] //= 3
    assert centre(image).shape == (36, 36, 4)


def test_colours_go_on_under_the_transparent_pixels():
    image = np.zeros((80, 120, 4), np.uint8)
    image[30:50, 50:70] = (210, 90, 30, 255)
    extended = extend_colours(image)
    assert np.abs(extended[..., :3].astype(int) - (210, 90, 30)).max() <= 1
    assert np.array_equal(extended[..., 3], image[..., 3])


def test_visible_pixels_keep_their_colours():
    image = spot(60, 60, 10, 10, (30, 30))
    image[10:40, 10:12, 3] = 3
    extended = extend_colours(image)
    visible = image[..., 3] > 0
    assert np.array_equal(extended[visible], image[visible])


@pytest.mark.parametrize("size", [(40, 90), (91, 40), (50, 50)])
def test_padding_keeps_the_whole_picture(size):
    image = spot(*size, 0, 0, size)
    square = pad_to_square(image)
    side = max(size)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    assert square.shape == (side, side, 4)
    assert np.array_equal(square[top : top + size[0], left : left + size[1]], image)
    assert square[..., 3].sum() == image[..., 3].sum()
