"""The engine: files all or none, the same bytes every time, figures a door can pass on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import trimesh
from helpers.gltf_check import khronos_issues, read_glb
from helpers.pictures import mushroom_png
from PIL import Image

from onelook.asset.mesh_parts import read_parts
from onelook.backends import BACKENDS, BackendEntry, choose_backend
from onelook.engine import ATTACHMENTS, Engine
from onelook.errors import (
    ForegroundError,
    OptionError,
    OutputError,
    PictureError,
    SurfaceError,
    WeightsError,
)
from onelook.options import Options
from onelook.report import Report
from onelook.weights.manifest import checkpoint

SMALL = Options(decimation_target=1000, texture_size=256, generate_video=False)
PICTURE = mushroom_png()


@pytest.fixture(scope="module")
def engine():
    return Engine(device="cpu")


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """One complete run: (result, folder, report)."""
    folder, report = tmp_path_factory.mktemp("run"), Report()
    options = Options(decimation_target=1000, texture_size=256, return_no_background=True)
    return engine.generate(PICTURE, options, folder, "mushroom", report), folder, report


def test_files_are_where_the_result_says(run):
    result, folder, _ = run
    assert result.files == {
        "no_background_image": folder / "mushroom_no_background.png",
        "video": folder / "mushroom.mp4",
        "model_file": folder / "mushroom.glb",
        **dict.fromkeys(("preview_image", "contact_sheet", *ATTACHMENTS)),
    }
    made = {key: path for key, path in result.files.items() if path}
    assert sorted(folder.iterdir()) == sorted(made.values())
    for key, path in made.items():
        assert result.metrics[f"megabytes.{key}"] == round(path.stat().st_size / 1e6, 3)


def test_metrics_are_flat_and_safe_for_json_and_for_cog(run):
    result, _, report = run
    metrics = result.metrics
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    for name, value in metrics.items():
        assert type(value) in (bool, int, float, str), name  # no numpy scalars
        assert not isinstance(value, float) or math.isfinite(value), name
        # Cog's rules: dots nest, at most four segments, 128 characters, one name is its own
        segments = name.split(".")
        assert all(segments) and len(segments) <= 4 and len(name) <= 128
        assert segments[0] != "predict_time"
        for length in range(1, len(segments)):
            assert ".".join(segments[:length]) not in metrics, f"{name} lies inside a figure"
    assert metrics["seed"] == 42
    assert metrics["model"] == "relief"
    assert metrics["cut_out"] == "alpha"
    assert 0 < metrics["faces"] <= 1000
    assert metrics["options.texture_size"] == 256
    assert {name for name in metrics if name.startswith("options.")} == {
        f"options.{name}" for name in Options.__dataclass_fields__
    }
    steps = {name for name in metrics if name.startswith("seconds.")} - {"seconds.total"}
    assert steps == {f"seconds.{step.replace(' ', '_')}" for step in report.seconds}
    assert metrics["seconds.total"] == pytest.approx(sum(metrics[step] for step in steps), abs=0.01)


def test_what_is_not_asked_for_is_none_and_not_made(engine, tmp_path):
    options = Options(generate_model=False, generate_video=False, return_no_background=True)
    result = engine.generate(PICTURE, options, tmp_path)
    assert result.files["video"] is None and result.files["model_file"] is None
    assert list(tmp_path.iterdir()) == [result.files["no_background_image"]]
    assert "model" not in result.metrics  # no backend was needed


def test_every_output_in_the_format_asked_for(engine, tmp_path):
    options = Options(
        decimation_target=1000, texture_size=256, format="obj", normal_map=True,
        video_format="gif", video_size=256, return_preview=True, return_contact_sheet=True,
    )  # fmt: skip
    result = engine.generate(PICTURE, options, tmp_path, "a.b")
    assert result.files == {
        "no_background_image": None,
        "video": tmp_path / "a.b.gif",
        "model_file": tmp_path / "a.b.zip",
        "preview_image": tmp_path / "a.b_preview.png",
        "contact_sheet": tmp_path / "a.b_contact_sheet.png",
        "gaussian_file": None,
        "views_image": None,
        "frames_file": None,
    }
    assert sorted(tmp_path.iterdir()) == sorted(filter(None, result.files.values()))
    with zipfile.ZipFile(tmp_path / "a.b.zip") as archive:
        assert {"model.obj", "model.mtl", "base_color.png", "normal.png"} <= set(archive.namelist())
    with Image.open(tmp_path / "a.b.gif") as film:
        assert film.size == (256, 256) and film.n_frames == 80
        assert film.info["duration"] == 4000 / 80
    preview = np.asarray(Image.open(tmp_path / "a.b_preview.png"))
    assert preview.shape == (512, 512, 4)
    assert (preview[[0, -1], :, 3] == 0).all() and (preview[..., 3] == 255).mean() > 0.1
    assert Image.open(tmp_path / "a.b_contact_sheet.png").size == (1024, 512)
    assert {"seconds.preview", "seconds.contact_sheet"} <= set(result.metrics)


@pytest.mark.parametrize("format", ["glb", "obj", "ply", "stl"])
def test_model_with_vertex_colors(engine, tmp_path, format):
    """The same shape and colours without UVs, in a fraction of the time; every file reads back."""
    options = replace(SMALL, bake_texture=False, format=format)
    result = engine.generate(PICTURE, options, tmp_path)
    path = result.files["model_file"]
    if format == "obj":
        with zipfile.ZipFile(path) as archive:
            path = Path(archive.extract("model.obj", tmp_path))
    if format == "glb":
        assert not (khronos_issues(path) or {}).get(str(path))
        document, _ = read_glb(path)
        (primitive,) = document["meshes"][0]["primitives"]
        assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "COLOR_0"}
        assert "images" not in document and document["asset"]["extras"]["model"] == "relief"
    loaded = trimesh.load(path, force="mesh", process=False)
    assert len(loaded.faces) == result.metrics["faces"] <= 1000
    assert np.isclose(loaded.extents.max(), 1, atol=1e-3)
    if format != "stl":
        (part,) = read_parts(path)
        assert part.colors is not None and len(np.unique(part.colors, axis=0)) > 10
    assert "seconds.unwrap" not in result.metrics


def test_vertex_colors_are_those_of_the_texture_and_are_shown(engine, tmp_path):
    """The preview of the coloured mesh looks like that of the textured one."""
    pictures = []
    for name, bake_texture in (("texture", True), ("vertices", False)):
        options = Options(
            bake_texture=bake_texture, decimation_target=50_000, texture_size=512,
            generate_video=False, generate_model=False, return_preview=True,
        )  # fmt: skip
        files = engine.generate(PICTURE, options, tmp_path, name).files
        pictures.append(np.asarray(Image.open(files["preview_image"])).astype(float))
    inside = (pictures[0][..., 3] == 255) & (pictures[1][..., 3] == 255)
    assert np.abs(pictures[0] - pictures[1])[inside].mean() < 4


def test_draco_needs_textures(engine, tmp_path):
    options = replace(SMALL, bake_texture=False, geometry_compression="draco")
    with pytest.raises(OptionError, match="needs bake_texture"):
        engine.generate(PICTURE, options, tmp_path / "out")


def test_glb_with_everything_in_it(engine, tmp_path):
    options = replace(
        SMALL, texture_format="webp", geometry_compression="draco", normal_map=True, seed=5
    )
    files = engine.generate(PICTURE, options, tmp_path).files
    document, _ = read_glb(files["model_file"])
    assert document["extensionsRequired"] == ["EXT_texture_webp", "KHR_draco_mesh_compression"]
    assert {image["mimeType"] for image in document["images"]} == {"image/webp"}
    assert "normalTexture" in document["materials"][0]
    assert document["asset"]["extras"]["options"]["texture_format"] == "webp"


def test_missing_library_is_told_before_the_work(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = replace(SMALL, geometry_compression="draco")
    with pytest.raises(OptionError, match=r"onelook\[draco\]"):
        engine.generate(b"no picture", options, tmp_path / "out")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_nothing_asked_for_is_refused(engine, tmp_path):
    options = Options(generate_model=False, generate_video=False)
    with pytest.raises(OptionError, match="turn on generate_model, generate_video, return_no"):
        engine.generate(PICTURE, options, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_randomized_seed_is_reported(engine, tmp_path):
    options = Options(
        generate_model=False, generate_video=False, return_no_background=True, randomize_seed=True
    )
    seeds = [engine.generate(PICTURE, options, tmp_path).metrics["seed"] for _ in range(2)]
    assert len({42, *seeds}) == 3


ONE_CORE_RUN = """
import hashlib, os, sys
from pathlib import Path
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from onelook.engine import ATTACHMENTS, Engine
from onelook.options import Options
options = Options(decimation_target=1000, texture_size=256, generate_video=False)
result = Engine(device="cpu").generate(Path(sys.argv[1]), options, Path(sys.argv[2]))
print(hashlib.sha256(result.files["model_file"].read_bytes()).hexdigest())
"""


def test_same_picture_same_bytes_in_this_process_and_in_another_on_one_core(engine, tmp_path):
    digests = []
    for name in ("first", "second"):
        result = engine.generate(PICTURE, SMALL, tmp_path / name)
        digests.append(hashlib.sha256(result.files["model_file"].read_bytes()).hexdigest())
    (tmp_path / "picture.png").write_bytes(PICTURE)
    other = subprocess.run(
        [sys.executable, "-c", ONE_CORE_RUN, tmp_path / "picture.png", tmp_path / "third"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert other.returncode == 0, other.stderr
    digests.append(other.stdout.split()[-1])
    assert len(set(digests)) == 1


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (b"no picture", PictureError),
        (b"", PictureError),
        (PICTURE[:300], PictureError),
        (mushroom_png(16), PictureError),
        (Path("missing.png"), PictureError),
    ],
    ids=["text", "empty", "truncated", "small", "missing"],
)
def test_bad_picture_leaves_no_file_and_no_folder(engine, tmp_path, picture, error):
    with pytest.raises(error) as refusal:
        engine.generate(picture, SMALL, tmp_path / "new" / "out")
    assert str(tmp_path) not in str(refusal.value) and "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_transparent_picture_has_no_foreground(engine, tmp_path):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64)).save(buffer, "PNG")
    with pytest.raises(ForegroundError):
        engine.generate(buffer.getvalue(), SMALL, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["cut out", "shape", "bake", "write model", "video"])
def test_run_that_is_stopped_at_any_step_leaves_what_was_there(engine, tmp_path, step):
    """A cancelled prediction is a BaseException that comes between two bytecodes."""

    def stop(name: str, fraction: float) -> None:
        if name == step:
            raise KeyboardInterrupt

    (tmp_path / "output.glb").write_bytes(b"of an earlier run")
    options = Options(decimation_target=1000, texture_size=256)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(PICTURE, options, tmp_path, report=Report(on_progress=stop))
    assert [path.name for path in tmp_path.iterdir()] == ["output.glb"]
    assert (tmp_path / "output.glb").read_bytes() == b"of an earlier run"


def test_engine_works_on_after_a_failure(engine, tmp_path):
    with pytest.raises(PictureError):
        engine.generate(b"no picture", SMALL, tmp_path)
    assert engine.generate(PICTURE, SMALL, tmp_path).files["model_file"].exists()


def test_what_the_model_cannot_use_or_give_is_said(engine, tmp_path):
    wish = {"generate_gaussian": True, "generate_views": True, "generate_frames": True}
    wish |= {"generate_video": True, "video_source": "nerf", "video_size": 256}
    options = Options(**{**vars(SMALL), **wish})
    report = Report()
    result = engine.generate(PICTURE, options, tmp_path, report=report, images=[PICTURE])
    assert result.files["gaussian_file"] is None and result.files["views_image"] is None
    said = " ".join(report.notes)
    assert "images is ignored" in said
    for option in wish.keys() - {"generate_video", "video_size"}:
        assert f"{option} {'nerf ' * (option == 'video_source')}is ignored" in said
    assert result.files["video"].suffix == ".mp4"
    assert result.metrics["pictures"] == 1


def test_film_that_takes_too_long_is_made_smaller(tmp_path):
    options = Options(decimation_target=1000, texture_size=256, generate_model=False)
    result = Engine(device="cpu", step_seconds=0.0).generate(PICTURE, options, tmp_path)
    assert result.metrics["fallbacks"].endswith("video")
    with av.open(str(result.files["video"])) as film:
        assert film.streams.video[0].width == 256


def test_too_many_further_pictures(engine, tmp_path):
    with pytest.raises(OptionError, match="at most 8 pictures, got 9"):
        engine.generate(PICTURE, SMALL, tmp_path / "out", images=[PICTURE] * 9)


def test_output_folder_that_is_a_file(engine, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        engine.generate(PICTURE, SMALL, tmp_path / "out")


def test_progress_rises_to_its_end(engine, tmp_path):
    seen = []
    report = Report(on_progress=lambda step, fraction: seen.append(report.overall(fraction)))
    engine.generate(PICTURE, SMALL, tmp_path, report=report)
    assert seen == sorted(seen)
    assert all(0 <= fraction <= 1 for fraction in seen)


def _no_backend(device: str):
    raise AssertionError("only its name is asked for here")


TABLE = {  # two systems with weights of the real manifest, best first
    "best": BackendEntry("the best", _no_backend, ("triposr",), 12.0),
    "good": BackendEntry("a good one", _no_backend, ("instantmesh-unet",), 6.0),
    "relief": BackendEntry("a preview", _no_backend),
}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A weights folder of this test; a function puts a checkpoint there, full size, no content."""
    for variable in [name for name in os.environ if name.startswith(("ONELOOK_", "HF_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))

    def put(name: str) -> None:
        for spec in checkpoint(name).files:
            path = tmp_path / "weights" / checkpoint(name).repository / spec.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.truncate(path, spec.bytes or 1)

    return put


@pytest.mark.parametrize(
    ("present", "gigabytes", "chosen", "told"),
    [
        ([], 0, "relief", ["onelook weights pull triposr", "pull instantmesh-unet"]),
        ([], 80, "relief", ["onelook weights pull triposr", "pull instantmesh-unet"]),
        (["triposr", "instantmesh-unet"], 80, "best", ["its weights are on this machine"]),
        (["triposr", "instantmesh-unet"], 12, "best", []),
        (["triposr", "instantmesh-unet"], 8, "good", ["best (needs a GPU with 12 GB)"]),
        (["triposr", "instantmesh-unet"], 0, "relief", ["good (needs a GPU with 6 GB)"]),
        (["instantmesh-unet"], 80, "good", ["best (no weights: onelook weights pull triposr)"]),
        (["triposr"], 8, "relief", ["needs a GPU with 12 GB", "pull instantmesh-unet"]),
    ],
)
def test_auto_takes_the_best_that_is_here_and_fits(weights, present, gigabytes, chosen, told):
    for name in present:
        weights(name)
    report = Report()
    assert choose_backend("auto", gigabytes, report, TABLE) == chosen
    (note,) = report.notes
    assert note.startswith(f"model auto: chose {chosen} ({TABLE[chosen].summary})")
    assert all(words in note for words in told)


def test_named_model_is_taken_without_a_word(weights):
    weights("triposr")
    report = Report()
    assert choose_backend("best", 80, report, TABLE) == "best"
    assert choose_backend("relief", 80, report, TABLE) == "relief"
    assert report.notes == []


def test_unknown_model_is_answered_with_the_known_ones(weights):
    with pytest.raises(OptionError, match="must be one of auto, best, good, relief, got 'dalle'"):
        choose_backend("dalle", 80, Report(), TABLE)


def test_named_model_without_weights_names_the_remedy(weights, engine, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "best", TABLE["best"])
    with pytest.raises(WeightsError, match="onelook weights pull triposr"):
        engine.generate(PICTURE, Options(model="best"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_backend_that_fails_leaves_no_file(engine, tmp_path, monkeypatch):
    class Failing:
        step_shares = {}

        def generate(self, foreground, options, report):
            raise SurfaceError("the surface has no faces")

    monkeypatch.setitem(BACKENDS, "failing", BackendEntry("fails", lambda device: Failing()))
    options = Options(model="failing", return_no_background=True)
    with pytest.raises(SurfaceError):
        engine.generate(PICTURE, options, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_named_model_without_its_libraries_names_the_extra():
    table = {"deep": BackendEntry("needs more", lambda setup: None, modules=("no_such_module",))}
    with pytest.raises(OptionError, match=r"not installed: no_such_module; .*onelook\[models\]"):
        choose_backend("deep", 80, Report(), table)
    with pytest.raises(WeightsError, match="deep .no_such_module not installed"):
        choose_backend("auto", 80, Report(), table)
