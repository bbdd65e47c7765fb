"""`onelook texture` from a mesh file and a picture to a GLB, with a tiny checkpoint."""

import argparse

import numpy as np
import pytest
import trimesh
from helpers.pictures import mushroom_png
from helpers.trellis2_checkpoint import write_dino3, write_trellis2

from onelook.asset.load import load_glb
from onelook.errors import ForegroundError, OptionError, OutputError, SurfaceError, WeightsError
from onelook.texture_command import OPTIONS, add_arguments, run

CENTRE = np.array([2.0, -1.0, 3.0])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return write_trellis2(folder / "trellis2"), write_dino3(folder / "dino3")


@pytest.fixture
def weights(checkpoints, monkeypatch):
    trellis2, dino3 = checkpoints
    monkeypatch.setenv("ONELOOK_TRELLIS2_WEIGHTS", str(trellis2))
    monkeypatch.setenv("ONELOOK_TRELLIS2_TEXTURING_WEIGHTS", str(trellis2))
    monkeypatch.setenv("ONELOOK_DINOV3_VITL16_WEIGHTS", str(dino3))


@pytest.fixture
def inputs(tmp_path):
    """A rod, thin so that even 512^3 is quick, off the origin; and a picture."""
    rod = trimesh.creation.box((0.05, 4.0, 0.06)).apply_translation(CENTRE)
    rod.export(tmp_path / "rod.glb")
    (tmp_path / "picture.png").write_bytes(mushroom_png())
    return tmp_path


def command(folder, *words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name in OPTIONS:
        parser.add_argument(f"--{name}")
    files = [str(folder / name) for name in ("rod.glb", "picture.png")]
    small = ["--resolution", "512", "--tex_slat_steps", "2", "--texture_size", "256"]
    out = ["-o", str(folder / "out.glb"), "--device", "cpu"]
    return run(parser.parse_args([*files, *out, *small, *words]))


def test_a_mesh_and_a_picture_become_a_painted_glb(weights, inputs, capsys):
    made = []
    for seed in ("1", "1", "2"):
        assert command(inputs, "--seed", seed, "-q") == 0
        made.append((inputs / "out.glb").read_bytes())
    assert made[0] == made[1] != made[2]
    assert capsys.readouterr().out.splitlines()[0].startswith(str(inputs / "out.glb"))
    asset = load_glb(inputs / "out.glb")
    assert len(asset.faces) == 12
    low, high = asset.vertices.min(0), asset.vertices.max(0)
    assert (low + high) / 2 == pytest.approx(CENTRE, abs=1e-5)
    assert high - low == pytest.approx([0.05, 4.0, 0.06], rel=1e-4)
    assert asset.textures.base_color[..., :3].std() > 1  # the network's colours, not one grey


def test_it_says_what_it_did(weights, inputs, capsys):
    command(inputs)
    out, err = capsys.readouterr()
    assert "12 faces, a new UV layout" in out
    assert "100%" in err


@pytest.mark.parametrize(
    "words, error, message",
    [
        (["--resolution", "768"], OptionError, "resolution must be 512, 1024 or 1536, got 768"),
        (["--tex_slat_steps", "99"], OptionError, "tex_slat_steps must be a whole number"),
        (["-o", "painted.obj"], OptionError, "output must be a file ending in .glb, got '.obj'"),
        (["-o", "no/such/folder/a.glb"], OutputError, "folder of the output file does not exist"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(inputs, words, error, message):
    (inputs / "rod.glb").unlink()
    with pytest.raises(error, match=message):
        command(inputs, *words)


def test_unusable_inputs_leave_no_file(weights, inputs):
    (inputs / "picture.png").write_bytes(mushroom_png())
    (inputs / "rod.glb").write_bytes(b"no mesh")
    with pytest.raises(SurfaceError):
        command(inputs, "-q")
    trimesh.creation.box().export(inputs / "rod.glb")
    from PIL import Image

    Image.new("RGBA", (64, 64)).save(inputs / "picture.png")
    with pytest.raises(ForegroundError):
        command(inputs, "-q")
    assert not (inputs / "out.glb").exists()


def test_missing_weights_are_named(inputs, monkeypatch, tmp_path):
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no_cache"))
    (inputs / "rod.glb").unlink()  # said before anything is read
    with pytest.raises(WeightsError, match="weights pull trellis2-4b .*trellis2-texturing"):
        command(inputs, "-q")
