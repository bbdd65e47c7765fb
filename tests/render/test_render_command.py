"""`onelook render` in real processes."""

import subprocess
import sys

import av
import numpy as np
import pytest
import trimesh
from helpers.solids import textured_sphere
from PIL import Image

from onelook.asset.export import write_model


def render(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "onelook.cli", "render", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    path = tmp_path_factory.mktemp("mesh") / "ball.glb"
    write_model(textured_sphere(), path)
    return path


def test_all_three_files_of_a_glb(ball, tmp_path):
    video, preview, sheet = (tmp_path / name for name in ("v.mp4", "p.png", "s.png"))
    done = render(
        ball, "--video", video, "--preview", preview, "--contact-sheet", sheet,
        "--size", 96, "--seconds", 1, "--supersample", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ball.glb: 960 faces" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == [
        str(path) for path in (preview, sheet, video)
    ]
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (96, 96, 30)
        assert sum(1 for _ in container.decode(stream)) == 30
    pixels = np.asarray(Image.open(preview))
    assert pixels.shape == (96, 96, 4) and pixels[0, 0, 3] == 0 and pixels[48, 48, 3] == 255
    assert Image.open(sheet).size == (192, 96)


def test_a_mesh_far_away_and_of_any_size_fills_the_picture(tmp_path):
    box = trimesh.creation.box(extents=(300, 300, 300))
    box.apply_translation((1e5, -2e5, 0))
    box.export(tmp_path / "box.stl")
    done = render(tmp_path / "box.stl", "--preview", tmp_path / "p.png", "--size", 64, "-q")
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    alpha = np.asarray(Image.open(tmp_path / "p.png"))[..., 3]
    rows, columns = np.nonzero(alpha)
    assert max(np.ptp(rows), np.ptp(columns)) > 45
    assert min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 63


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ([], 2, "nothing to do: name a file with --video"),
        (["--video", "film.avi"], 2, "ending in .mp4, .webm, .gif or .webp, got '.avi'"),
        (["--video", "film.mp4", "--size", "101"], 2, "size must be an even number for mp4"),
        (["--preview", "p.jpg"], 2, "preview must be a file ending in .png"),
        (["--preview", "p.png", "--size", "9999"], 2, "size must be from 16 to 4096"),
        (["--preview", "p.png", "--supersample", "0"], 2, "supersample must be from 1 to 8"),
        (["--previw", "p.png"], 2, "no option --previw; did you mean --preview?"),
        (["--preview", "nowhere/p.png"], 1, "the folder of an output file does not exist"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_told_before_anything_is_read(
    capsys, tmp_path, monkeypatch, arguments, code, complaint
):
    from onelook.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["render", "no such mesh.glb", *arguments]) == code
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_unusable_mesh_is_one_sentence(tmp_path):
    (tmp_path / "bad.glb").write_bytes(b"glTF and then nothing")
    done = render(tmp_path / "bad.glb", "--preview", tmp_path / "p.png")
    assert done.returncode == 1
    assert "onelook: error: the mesh file cannot be read as GLB" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "p.png").exists()
