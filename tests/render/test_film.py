import av
import numpy as np
import pytest
from PIL import Image

from onelook.errors import OptionError
from onelook.render.film import FILM_SUFFIXES, write_turntable


def read(path):
    """Frames (H, W, 3) and their number per second."""
    if path.suffix in (".gif", ".webp"):
        with Image.open(path) as film:
            frames = []
            for i in range(film.n_frames):
                film.seek(i)
                frames.append(np.asarray(film.convert("RGB")))
            return frames, 1000 / film.info["duration"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, float(stream.average_rate)


@pytest.fixture(scope="module")
def films(sphere, tmp_path_factory):
    """The same ball, red in front and green behind, filmed in every format: frames and rate."""
    texture = np.zeros((64, 64, 4), np.uint8)
    texture[:, :32, 0] = texture[:, 32:, 1] = texture[..., 3] = 255
    folder, films = tmp_path_factory.mktemp("films"), {}
    for format, suffix in FILM_SUFFIXES.items():
        path = folder / f"film{suffix}"
        write_turntable(sphere(texture), path, size=64, format=format, seconds=0.8, device="cpu")
        films[format] = read(path)
    return films


@pytest.mark.parametrize("format", FILM_SUFFIXES)
def test_film_takes_its_time_and_goes_once_round(films, format):
    frames, rate = films[format]
    assert rate == (30 if format in ("mp4", "webm") else 20)
    assert len(frames) == round(0.8 * rate)
    assert frames[0].shape == (64, 64, 3)
    front, back = frames[0][32, 32].astype(int), frames[len(frames) // 2][32, 32].astype(int)
    assert front[0] > front[1] + 80 and back[1] > back[0] + 80
    gap = np.abs(frames[0].astype(int) - frames[-1]).mean()
    assert 0 < gap < np.abs(frames[0].astype(int) - frames[len(frames) // 2]).mean() / 3


def test_unknown_format_is_refused(sphere, tmp_path):
    with pytest.raises(OptionError, match="mp4, gif, webp, webm, got 'avi'"):
        write_turntable(sphere(), tmp_path / "film.avi", format="avi")
    assert not list(tmp_path.iterdir())
