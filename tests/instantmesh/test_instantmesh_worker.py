"""The worker, on a tiny checkpoint set: what a host project sees of it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import trimesh
import yaml
from helpers.geometry import signed_volume
from helpers.instantmesh_checkpoint import (
    HALF_AXES,
    NERF,
    write_all,
    write_config,
    write_reconstruction,
)
from PIL import Image, ImageDraw

from instantmesh_backend.reconstruction import InstantNeRF
from instantmesh_backend.worker import main, open_pipeline, read_cutout

SCRIPT = """
import sys
from instantmesh_backend.worker import main
code = main(sys.argv[1:])
unwanted = ("rembg", "onnxruntime", "sam2", "segment_anything", "torchvision", "warp", "cv2")
print("imported:", *[name for name in unwanted if name in sys.modules])
sys.exit(code)
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def place(checkpoints, tmp_path, monkeypatch):
    """A folder with a cut-out, and the options that every call needs."""
    monkeypatch.setenv("ONELOOK_ZERO123PLUS_V1_2_WEIGHTS", str(checkpoints[0]))
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    image = Image.new("RGBA", (80, 80))
    ImageDraw.Draw(image).ellipse([10, 10, 70, 70], fill=(200, 120, 40, 255))
    image.save(tmp_path / "input_cup.png")
    return tmp_path


@pytest.fixture
def arguments(place, checkpoints):
    return {
        "--input_image": place / "input_cup.png",
        "--output_mesh": place / "out" / "mesh_cup.obj",
        "--name": "cup",
        "--config_path": checkpoints[1] / "instant-mesh-large.yaml",
        "--num_inference_steps": 1,
    }


def words(arguments):
    return [str(part) for pair in arguments.items() for part in pair]


def fails(arguments, capsys, code=1):
    """The last line on stderr of a call that must fail and leave nothing."""
    assert main(words(arguments)) == code
    assert not arguments["--output_mesh"].exists()
    assert not list(arguments["--output_mesh"].parent.rglob("6_views_*"))
    assert not list(arguments["--input_image"].parent.rglob("*.part"))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("instantmesh worker: error: ")
    return last


def test_as_a_host_calls_it(arguments, place):
    """In a process of its own, without one package that removes backgrounds or segments."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words(arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "imported:"
    assert sorted(path.name for path in (place / "out").iterdir()) == [
        "6_views_cup.png",
        "mesh_cup.obj",
    ]
    with Image.open(place / "out" / "6_views_cup.png") as views:
        assert (views.size, views.mode) == ((640, 960), "RGB")
    mesh = trimesh.load(place / "out" / "mesh_cup.obj", process=False)
    vertices, colors = mesh.vertices, mesh.visual.vertex_colors[:, :3].astype(float)
    assert np.ptp(vertices, axis=0) == pytest.approx(2 * np.array(HALF_AXES), rel=0.12)
    assert signed_volume(vertices, mesh.faces) > 0  # outward, although mirrored
    for axis, sign in enumerate((1, 1, -1)):  # the tiny model's colours grow with x, y and z
        assert sign * np.corrcoef(vertices[:, axis], colors[:, axis])[0, 1] > 0.98

    before = {path.name: path.read_bytes() for path in (place / "out").iterdir()}
    assert main(words(arguments)) == 0  # another process, the same bytes
    assert {path.name: path.read_bytes() for path in (place / "out").iterdir()} == before


TEXTURED = ["mesh_cup.mtl", "mesh_cup.obj", "mesh_cup.png"]


def test_with_a_texture(arguments, place):
    """Three files that name each other, in the original's axes: z up, not mirrored."""
    assert main([*words({**arguments, "--save_dir": place}), "--export_texmap"]) == 0
    assert sorted(path.name for path in (place / "out").iterdir()) == TEXTURED
    with Image.open(place / "out" / "mesh_cup.png") as texture:
        assert (texture.size, texture.mode) == ((1024, 1024), "RGB")
    mesh = trimesh.load(place / "out" / "mesh_cup.obj", process=False)
    assert mesh.visual.material.name == "material_0"
    assert np.ptp(mesh.vertices, axis=0) == pytest.approx(2 * np.array(HALF_AXES), rel=0.12)
    assert signed_volume(mesh.vertices, mesh.faces) > 0
    colors = mesh.visual.to_color().vertex_colors[:, :3].astype(float)
    for axis in range(3):  # the tiny model's colours grow with x, y and z
        assert np.corrcoef(mesh.vertices[:, axis], colors[:, axis])[0, 1] > 0.98


def test_a_texture_that_fails_leaves_nothing(arguments, place, monkeypatch, capsys):
    """Neither of this run nor of an earlier one."""
    (place / "out").mkdir()
    for name in TEXTURED:
        (place / "out" / name).write_text("old")
    write_bytes = type(place).write_bytes

    def full_disk(path, content):
        if ".png" in path.name:
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(type(place), "write_bytes", full_disk)
    assert main([*words(arguments), "--export_texmap"]) == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert list((place / "out").iterdir()) == []


def test_a_texture_in_the_way_of_the_input(arguments, place, capsys):
    arguments["--output_mesh"] = arguments["--input_image"].with_suffix(".obj")
    assert main([*words(arguments), "--export_texmap"]) == 1
    assert "its PNG and the six views must be different files" in capsys.readouterr().err
    assert arguments["--input_image"].is_file()


def test_seed_steps_and_save_dir(arguments, place):
    made = {}
    for changes in ({}, {"--seed": 7}, {"--num_inference_steps": 2}):
        folder = place / f"views {len(made)}"
        assert main(words({**arguments, **changes, "--save_dir": folder})) == 0
        made[len(made)] = (folder / "6_views_cup.png").read_bytes()
        assert sorted(path.name for path in folder.iterdir()) == ["6_views_cup.png"]
    assert len(set(made.values())) == 3
    assert [path.name for path in (place / "out").iterdir()] == ["mesh_cup.obj"]


def test_the_default_config_is_the_originals(arguments, place, checkpoints, monkeypatch):
    monkeypatch.chdir(place)
    folder = place / "instantmesh" / "configs"
    folder.mkdir(parents=True)
    (place / "ckpts").mkdir()
    for name in ("diffusion_pytorch_model.bin", "instant_mesh_large.ckpt"):
        (place / "ckpts" / name).symlink_to(checkpoints[1] / name)
    write_config(
        folder / "instant-mesh-large.yaml",
        "ckpts/diffusion_pytorch_model.bin",
        "ckpts/instant_mesh_large.ckpt",
    )
    del arguments["--config_path"], arguments["--name"]
    assert main(words(arguments)) == 0
    assert (place / "out" / "6_views_obj.png").is_file()


def test_without_a_config_it_is_the_published_large_model(
    arguments, place, checkpoints, monkeypatch, capsys
):
    """Which the tiny one is not."""
    monkeypatch.chdir(place)
    del arguments["--config_path"]
    assert "onelook weights pull instantmesh-unet" in fails(arguments, capsys)
    monkeypatch.setenv("ONELOOK_INSTANTMESH_UNET_WEIGHTS", str(checkpoints[1]))
    monkeypatch.setenv("ONELOOK_INSTANTMESH_LARGE_WEIGHTS", str(checkpoints[1]))
    assert "instant_mesh_large.ckpt does not fit InstantMesh" in fails(arguments, capsys)


def test_files_that_are_not_where_the_yaml_says(arguments, place, checkpoints, monkeypatch, capsys):
    """They come from the weights of that name, and if there are none, the remedy is named."""
    path = place / "config.yaml"
    write_config(path, "ckpts/diffusion_pytorch_model.bin", "ckpts/instant_mesh_large.ckpt")
    arguments["--config_path"] = path
    assert "onelook weights pull instantmesh-unet" in fails(arguments, capsys)
    monkeypatch.setenv("ONELOOK_INSTANTMESH_UNET_WEIGHTS", str(checkpoints[1]))
    monkeypatch.setenv("ONELOOK_INSTANTMESH_LARGE_WEIGHTS", str(checkpoints[1]))
    assert main(words(arguments)) == 0
    write_config(path, "ckpts/other.bin", "ckpts/instant_mesh_large.ckpt")
    assert "names other.bin, which is neither a file there nor" in fails(arguments, capsys)


def change_config(path, source, **changes):
    content = yaml.safe_load(source.read_text())
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            content[section][name] = value
        else:
            content[section] = value
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"model_config__target": "src.models.lrm_other.Model"},
            "target must be one of src.models.lrm_mesh.InstantMesh, .* got 'src.models.lrm_other",
        ),
        ({"model_config__params": None}, "model_config has no params"),
        ({"model_config": 3}, "has no model_config"),
        ({"infer_config": None}, "has no infer_config"),
        ({"model_config__params": {"transformer_dim": 8}}, "params lacks"),
        ({"infer_config__unet_path": None}, "has no infer_config.unet_path"),
    ],
)
def test_configs_that_describe_nothing(arguments, checkpoints, place, capsys, changes, message):
    source = checkpoints[1] / "instant-mesh-large.yaml"
    path = change_config(place / "config.yaml", source, **changes)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(fails({**arguments, "--config_path": path}, capsys))


def test_the_nerf_target(checkpoints, place):
    model = write_reconstruction(place / "instant_nerf_large.ckpt", NERF)
    unet = checkpoints[1] / "diffusion_pytorch_model.bin"
    path = write_config(place / "nerf.yaml", unet, model, "src.models.lrm.InstantNeRF")
    assert isinstance(open_pipeline(path).reconstruction, InstantNeRF)


def test_pictures_that_are_no_cut_out(arguments, place, capsys):
    kinds = {
        "rgb.png": Image.new("RGB", (64, 64)),
        "palette.png": Image.new("P", (64, 64)),
        "small.png": Image.new("RGBA", (64, 31), (1, 2, 3, 255)),
        "empty.png": Image.new("RGBA", (64, 64)),
    }
    messages = {
        "rgb.png": "must be an RGBA cut-out, got a PNG of mode RGB; remove its background",
        "palette.png": "got a PNG of mode P",
        "small.png": "64 x 31 pixels",
        "empty.png": "every pixel is transparent",
        "text.png": "PNG, JPEG, WebP",
        "missing.png": "does not exist",
    }
    (place / "text.png").write_text("no picture")
    for name, image in kinds.items():
        image.save(place / name)
    for name, message in messages.items():
        assert message in fails({**arguments, "--input_image": place / name}, capsys), name
    assert not (place / "out").exists()


def test_a_cut_out_is_read_to_the_byte(place):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 4), np.uint8)
    Image.fromarray(pixels).save(place / "random.png")
    read = read_cutout(place / "random.png")
    assert read.mode == "RGBA" and np.array_equal(np.asarray(read), pixels)


def test_outputs_that_cannot_be_written(arguments, place, capsys):
    (place / "file").write_text("")
    last = fails({**arguments, "--output_mesh": place / "file" / "mesh.obj"}, capsys)
    assert "the output folder cannot be written" in last
    last = fails({**arguments, "--save_dir": place / "file"}, capsys)
    assert "the output folder cannot be written" in last
    arguments["--output_mesh"] = place / "folder.obj"
    (place / "folder.obj").mkdir()
    assert main(words(arguments)) == 1
    assert "cannot be written" in capsys.readouterr().err.splitlines()[-1]


def test_the_input_is_never_written_over(arguments, place, capsys):
    arguments["--output_mesh"] = arguments["--input_image"]
    assert main(words(arguments)) == 1
    assert "must be different files" in capsys.readouterr().err
    assert arguments["--input_image"].is_file()


def test_a_failure_leaves_nothing_of_an_earlier_run(arguments, place, checkpoints, capsys):
    """A host that looks for the file must not take an old one for new."""
    (place / "out").mkdir()
    for name in ("mesh_cup.obj", "6_views_cup.png", "other.txt"):
        (place / "out" / name).write_text("old")
    unet = checkpoints[1] / "diffusion_pytorch_model.bin"
    arguments["--config_path"] = write_config(place / "config.yaml", unet, unet)
    assert "diffusion_pytorch_model.bin does not fit InstantMesh" in fails(arguments, capsys)
    assert [path.name for path in (place / "out").iterdir()] == ["other.txt"]


def test_wrong_usage(arguments, capsys):
    for changes, message in [
        ({"--num_inference_steps": 0}, "from 1 to 1000"),
        ({"--seed": -1}, "--seed"),
        ({"--name": "../x"}, "without folders"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main(words({**arguments, **changes}))
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
