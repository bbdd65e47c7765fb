import resource

import av
import numpy as np
import pytest
from PIL import Image

from onelook.errors import OutputError
from onelook.render.video import write_animation, write_video


def make_frames(count=12, height=48, width=64, channels=4):
    """A square that moves over a gradient."""
    for i in range(count):
        frame = np.zeros((height, width, channels), np.uint8)
        frame[..., 0] = np.linspace(0, 255, width)
        frame[..., 1] = 120
        frame[10:30, 3 * i : 3 * i + 20, :3] = 230, 40, 60
        frame[..., 3:] = 255
        yield frame


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream.codec_context, stream.average_rate, frames


@pytest.mark.parametrize("codec, suffix", [("h264", "mp4"), ("vp9", "webm"), ("av1", "mp4")])
def test_film_decodes_to_what_went_in(tmp_path, codec, suffix):
    path = tmp_path / f"film.{suffix}"
    write_video(make_frames(height=96, width=128), path, fps=25, codec=codec)
    context, rate, frames = decode(path)
    assert (context.width, context.height, context.pix_fmt) == (128, 96, "yuv420p")
    assert rate == 25 and len(frames) == 12
    for got, sent in zip(frames, make_frames(height=96, width=128), strict=True):
        assert abs(got.astype(int) - sent[..., :3]).mean() < 6


def test_colours_are_tagged_and_kept(tmp_path):
    colors = np.array([[214, 92, 46], [38, 92, 128], [240, 240, 240], [128, 128, 128]], np.uint8)
    frame = np.repeat(np.repeat(colors[None], 64, axis=0), 32, axis=1)  # four upright bars
    write_video([frame] * 3, tmp_path / "film.mp4")
    context, _, frames = decode(tmp_path / "film.mp4")
    tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
    assert tags == (1, 1, 1, 1)
    for i, color in enumerate(colors):
        bar = frames[1][20:44, 32 * i + 10 : 32 * i + 22].reshape(-1, 3).astype(int)
        assert abs(bar.mean(axis=0) - color).max() < 3


def test_index_comes_before_the_pictures(tmp_path):
    write_video(make_frames(), tmp_path / "film.mp4")
    content = (tmp_path / "film.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize("width", [160, 256, 264])
def test_same_frames_same_bytes(tmp_path, width):
    """Encoded often: a width that x264 is not steady at shows in one film of five."""
    path, frames = tmp_path / "a.mp4", list(make_frames(40, 96, width))
    films = set()
    for _ in range(16):
        write_video(frames, path)
        films.add(path.read_bytes())
    assert len(films) == 1


def test_bad_frames_are_refused_and_leave_nothing(tmp_path):
    path = tmp_path / "film.mp4"
    with pytest.raises(ValueError, match="must be even, got 63 x 48"):
        write_video(make_frames(width=63), path)
    with pytest.raises(ValueError, match="at least one frame"):
        write_video([], path)
    with pytest.raises(ValueError, match="keep their size"):
        write_video([*make_frames(2), *make_frames(2, height=50)], path)
    with pytest.raises(ValueError, match="codec must be one of"):
        write_video(make_frames(), path, codec="mpeg2")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_renderer_comes_through(tmp_path):
    def broken():
        yield from make_frames(3)
        raise RuntimeError("lost the scene")

    with pytest.raises(RuntimeError, match="lost the scene"):
        write_video(broken(), tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(OutputError, match="output folder cannot be written"):
        write_video(make_frames(), tmp_path / "nowhere" / "film.mp4")


def test_full_disk_leaves_nothing_behind(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"the old one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # writes fail as on a full disk
    try:
        with pytest.raises(OutputError, match="output folder cannot be written"):
            write_video(make_frames(), tmp_path / "film.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]
    assert (tmp_path / "film.mp4").read_bytes() == b"the old one"


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_animation_plays_for_ever_at_its_speed(tmp_path, suffix):
    path = tmp_path / f"film.{suffix}"
    write_animation(make_frames(), path, fps=20)
    with Image.open(path) as picture:
        assert picture.n_frames == 12 and picture.size == (64, 48)
        assert picture.info["loop"] == 0
        picture.seek(3)
        shown = np.asarray(picture.convert("RGB")).astype(int)
        assert picture.info["duration"] == 50
    sent = list(make_frames())[3][..., :3]
    assert abs(shown - sent).mean() < 10


def test_animation_needs_a_known_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"\.gif or \.webp"):
        write_animation(make_frames(), tmp_path / "film.apng")
