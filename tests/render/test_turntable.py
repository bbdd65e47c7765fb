import subprocess
import sys

import numpy as np

from onelook.render.scene import RenderScene
from onelook.render.turntable import contact_sheet, preview, turntable_frames
from onelook.report import Report


def patched_ball(sphere):
    """A white ball with a red patch in front, which is at u = 0.25 of its texture."""
    texture = np.full((128, 256, 4), 255, np.uint8)[:, :, :]
    texture[56:72, 56:72, 1:3] = 0
    return sphere(np.repeat(texture, 2, axis=0))


def patch_column(frame):
    red = (frame[..., 0].astype(int) - frame[..., 1]) > 60
    return np.nonzero(red)[1].mean() if red.any() else None


def test_the_film_starts_at_the_front_and_turns_counter_clockwise_from_above(sphere):
    frames = list(turntable_frames(patched_ball(sphere), num_frames=12, size=96, device="cpu"))
    columns = [patch_column(frame) for frame in frames]
    assert abs(columns[0] - 47.5) < 1  # the front faces the viewer
    assert columns[1] > columns[0] + 5 and columns[2] > columns[1] + 3  # and moves to the right
    assert columns[6] is None  # the back
    assert columns[11] < columns[0] - 5  # it comes back from the left


def test_the_film_is_a_seamless_loop(knot):
    frames = [f.astype(int) for f in turntable_frames(knot, num_frames=24, size=64, device="cpu")]
    changes = [abs(a - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert changes[-1] < 1.5 * np.median(changes)
    assert min(changes) > 0.3 * np.median(changes)  # no frame is shown twice


def test_nothing_leaves_the_picture_and_little_is_wasted(knot):
    scene = RenderScene(knot, "cpu")
    covered = np.zeros((96, 96), bool)
    for frame in turntable_frames(scene, num_frames=24, size=96, background=(255, 0, 255)):
        covered |= (frame[..., :3] != (255, 0, 255)).any(axis=-1)
    rows, columns = np.nonzero(covered)
    assert min(rows.min(), columns.min()) >= 1 and max(rows.max(), columns.max()) <= 94
    assert max(np.ptp(rows), np.ptp(columns)) > 82


def test_progress_is_reported_per_frame(square):
    told = []
    report = Report(on_progress=lambda step, fraction: told.append((step, fraction)))
    texture = np.full((8, 8, 4), 200, np.uint8)
    with report.step("turntable"):
        frames = turntable_frames(
            square(texture), num_frames=4, size=8, device="cpu", report=report
        )
        assert len(list(frames)) == 4
    assert told[1:-1] == [("turntable", 0.25 * i) for i in (1, 2, 3, 4)]


def test_contact_sheet_shows_eight_views_front_first(sphere):
    sheet = contact_sheet(patched_ball(sphere), 64, device="cpu")
    assert sheet.shape == (128, 256, 4)
    views = [sheet[64 * r : 64 * r + 64, 64 * c : 64 * c + 64] for r in (0, 1) for c in range(4)]
    assert abs(patch_column(views[0]) - 31.5) < 1 and patch_column(views[4]) is None


def test_preview_is_cut_out(knot):
    picture = preview(knot, 96, device="cpu")
    assert picture.shape == (96, 96, 4)
    assert picture[0, 0, 3] == 0 and 0.15 < (picture[..., 3] == 255).mean() < 0.8


def test_importing_the_room_loads_no_engine():
    code = (
        "import sys, onelook.render.turntable, onelook.render.video;"
        "assert not {'warp', 'cv2', 'av', 'PIL', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
