"""The room's door: files in, a Foreground out, the same one every time."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from onelook.errors import ForegroundError, PictureError
from onelook.foreground.centre import centre
from onelook.foreground.decode import decode_picture
from onelook.foreground.extract import extract_foreground
from onelook.foreground.png import encode_png


def same_place(one: np.ndarray, other: np.ndarray, studio) -> float:
    """Overlap of two squares of nearly the same side."""
    assert abs(len(one) - len(other)) <= 4
    side = min(len(one), len(other))
    return studio.overlap(
        *(cv2.resize(image[..., 3] / 255, (side, side)) for image in (one, other))
    )


@pytest.mark.parametrize(
    ("place", "name"), [("white", "ring"), ("gradient, noise", "mug"), ("clouds", "ball")]
)
def test_the_cut_out_is_the_painted_object_centred(studio, place, name):
    painted = studio.objects[name]
    found = extract_foreground(studio.png(painted.on(studio.backgrounds[place])))
    truth = centre(painted.rgba())
    assert same_place(found.image, truth, studio) > 0.97
    assert found.method == ("rectangle" if place == "clouds" else "grabcut")
    assert bool(found.notes) == (place == "clouds")


def test_no_old_background_is_left_anywhere(studio):
    painted = studio.objects["ball"]  # red; the background is white
    image = extract_foreground(studio.png(painted.on(studio.backgrounds["white"]))).image
    assert image[..., 1].max() < 200 and image[..., 2].max() < 200


def test_a_picture_with_alpha_keeps_it(studio, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(studio.png(studio.objects["hairy"].rgba()))
    found = extract_foreground(path)
    truth = centre(studio.objects["hairy"].rgba())
    assert found.method == "alpha"
    assert np.array_equal(found.image[..., 3], truth[..., 3])
    seen = truth[..., 3] > 0
    assert np.array_equal(found.image[seen], truth[seen])


def test_without_removal_the_picture_is_taken_as_it_is(studio):
    rgb = studio.objects["mug"].on(studio.backgrounds["white"])[:250]
    found = extract_foreground(studio.png(rgb), remove_background=False)
    side, top = rgb.shape[1], (rgb.shape[1] - 250) // 2
    assert found.method == "none" and found.image.shape == (side, side, 4)
    assert np.array_equal(found.image[top : top + 250, :, :3], rgb)
    assert (found.image[top : top + 250, :, 3] == 255).all()
    assert found.image[..., 3].mean() == pytest.approx(255 * 250 / side)


def test_without_removal_alpha_is_kept_and_nothing_is_cropped(studio):
    rgba = studio.objects["tripod"].rgba()
    found = extract_foreground(studio.png(rgba), remove_background=False)
    assert found.method == "alpha"
    assert np.array_equal(found.image[..., 3], rgba[..., 3])


@pytest.mark.parametrize("remove_background", [True, False])
def test_a_fully_transparent_picture_is_refused(studio, remove_background):
    rgba = studio.objects["mug"].rgba()
    rgba[..., 3] = 0
    with pytest.raises(ForegroundError, match="fully transparent"):
        extract_foreground(studio.png(rgba), remove_background)


def test_a_bad_picture_is_refused():
    with pytest.raises(PictureError):
        extract_foreground(b"no picture")


def test_very_large_pictures_are_capped(studio):
    rgba = cv2.resize(studio.objects["ball"].rgba(), (2900, 700))
    for remove_background in (True, False):
        found = extract_foreground(encode_png(rgba), remove_background)
        assert max(found.image.shape) <= 2048
        assert found.image.shape[0] == found.image.shape[1]


def test_small_and_narrow_pictures_work(studio):
    rgb = cv2.resize(studio.objects["ball"].on(studio.backgrounds["white"]), (32, 40))
    assert extract_foreground(studio.png(rgb)).method == "grabcut"
    narrow = np.full((256, 32, 3), 240, np.uint8)
    narrow[60:200, 10:22] = (30, 60, 140)
    found = extract_foreground(studio.png(narrow))
    assert np.flatnonzero((found.image[..., 3] > 127).any(axis=1)).size == pytest.approx(140, abs=2)


def test_png_round_trip(studio):
    rgba = studio.objects["hairy"].rgba()
    assert np.array_equal(decode_picture(encode_png(rgba)), rgba)


SCRIPT = """
import hashlib, sys, cv2
from onelook.foreground.extract import extract_foreground
cv2.setNumThreads(int(sys.argv[1]))
for path in sys.argv[2:]:
    print(hashlib.sha256(extract_foreground(path).image.tobytes()).hexdigest())
"""


def test_same_bytes_in_other_processes_and_with_other_thread_counts(studio, tmp_path):
    paths = []
    for place in ("gradient, noise", "clouds"):
        path = tmp_path / f"{place}.png"
        Image.fromarray(studio.objects["mug"].on(studio.backgrounds[place])).save(path)
        paths.append(str(path))
    here = [hashlib.sha256(extract_foreground(p).image.tobytes()).hexdigest() for p in paths]
    for threads in ("1", "3"):
        command = [sys.executable, "-c", SCRIPT, threads, *paths]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == here


def test_importing_the_room_is_light():
    check = "import onelook.foreground, sys; print({'cv2', 'PIL', 'rembg'} & set(sys.modules))"
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
