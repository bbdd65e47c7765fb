"""The tiny checkpoint from files to a Surface, as the engine uses it."""

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from helpers.geometry import is_closed_and_oriented, signed_volume
from helpers.triposr_checkpoint import CONFIG, RADIUS, made_triposr, write_triposr
from PIL import Image

from onelook.backends import Setup
from onelook.errors import ForegroundError, GenerationError, WeightsError
from onelook.foreground.foreground import Foreground
from onelook.options import parse_options
from onelook.report import Report
from triposr_backend.backend import TO_CANONICAL, TripoSRBackend, prepare
from triposr_backend.extract_mesh import extract_mesh
from triposr_backend.film import NerfFilm
from triposr_backend.opening import open_triposr, read_config
from triposr_backend.pipeline import STEP_SHARES, TripoSRPipeline
from triposr_backend.scene_field import SceneField


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_triposr(tmp_path_factory.mktemp("triposr") / "checkpoint")


@pytest.fixture(scope="module")
def backend(folder):
    return TripoSRBackend(Setup("cpu", weights=str(folder)))


def cutout(side=80):
    """A red disc on a transparent square."""
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    image = np.zeros((side, side, 4), np.uint8)
    image[x * x + y * y < (0.3 * side) ** 2] = (200, 40, 30, 255)
    return Foreground(image, "alpha")


def options(**changes):
    return parse_options({"model": "relief", "mc_resolution": 64} | changes)


@pytest.fixture(scope="module")
def surface(backend):
    return backend.generate([cutout()], options(), Report())


def test_opened_weights_are_the_made_ones(folder):
    opened, made = open_triposr(folder), made_triposr()
    for key, value in made.state_dict().items():
        assert torch.equal(opened.state_dict()[key], value), key
    assert (folder / "model.ckpt.safetensors").is_file()  # so the next time it is mapped


def test_surface_is_the_ball_in_canonical_space(surface):
    vertices, faces = surface.vertices.astype(float), surface.faces
    assert surface.vertices.dtype == np.float32 and faces.dtype == np.int32
    assert is_closed_and_oriented(faces)
    np.testing.assert_allclose(vertices.min(0), -vertices.max(0), atol=1e-3)
    np.testing.assert_allclose(np.ptp(vertices, axis=0).max(), 1, atol=1e-6)
    # a ball but for its texels and what the picture does to it
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.5).max() < 0.06
    assert 0.85 < signed_volume(vertices, faces) / (np.pi / 6) < 1


def test_front_and_up_are_where_they_belong(backend):
    """A density that grows towards one of TripoSR's axes shifts the body there."""
    decoder = backend.pipeline.model.decoder
    planes = backend.pipeline.run(prepare(cutout().image, 0.85), 32).planes
    for own, canonical in ((0, 2), (1, 0), (2, 1)):  # x is front, y right, z up
        # plane and axis of the plane along which `own` runs: 0 rows, 1 columns
        plane, along = {0: (0, 1), 1: (0, 0), 2: (1, 0)}[own]
        tilted = planes.clone()
        ramp = torch.linspace(0, 0.2, planes.shape[-1])
        tilted[plane, 0] -= ramp[:, None] if along == 0 else ramp[None]
        field = SceneField(tilted, decoder, backend.pipeline.model.config.renderer)
        middle = extract_mesh(field, 48).vertices.mean(0)
        assert middle.abs().argmax() == own and middle[own] > 0.05
        assert (np.array(TO_CANONICAL) @ middle.numpy()).argmax() == canonical


def test_appearance_has_the_vertices_colours(backend, surface):
    sample = backend.pipeline.run(prepare(cutout().image, 0.85), 64)
    material = surface.appearance.sample(surface.vertices, np.zeros_like(surface.vertices))
    np.testing.assert_allclose(material.base_color, sample.mesh.vertex_colors, atol=1e-4)
    assert (material.alpha == 1).all() and (material.metallic == 0).all()


def test_steps_and_figures_are_reported(backend):
    report = Report()
    backend.generate([cutout()], options(), report)
    assert set(report.seconds) == set(STEP_SHARES) == set(backend.step_shares)
    assert 0 < report.figures["density_queries"] < 64**3


def test_options_reach_the_pipeline(backend, surface):
    coarse = backend.generate([cutout()], options(mc_resolution=32), Report())
    assert 3 < len(surface.faces) / len(coarse.faces) < 6
    chunked = backend.generate([cutout()], options(chunk_size=777), Report())
    assert np.array_equal(chunked.vertices, surface.vertices)
    assert np.array_equal(chunked.faces, surface.faces)
    # the ball hardly depends on the picture, but it does
    other = backend.generate([cutout()], options(foreground_ratio=0.5), Report())
    assert not np.array_equal(other.vertices, surface.vertices)
    unframed = backend.generate([cutout()], options(preprocess_image=False), Report())
    assert not np.array_equal(unframed.vertices, surface.vertices)


def test_seed_changes_nothing(backend, surface):
    other = backend.generate([cutout()], options(seed=7), Report())
    assert np.array_equal(other.vertices, surface.vertices)


def test_pictures_are_prepared_as_the_original_does():
    image = cutout().image
    assert prepare(image, None).shape == image.shape[:2] + (3,)
    assert tuple(prepare(image, None)[0, 0]) == (127, 127, 127)
    framed = prepare(image, 0.5)
    is_subject = (framed != 127).any(-1)
    assert abs(is_subject.any(0).sum() / len(framed) - 0.5) < 0.03
    opaque = np.dstack([image[..., :3], np.full(image.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(prepare(opaque, 0.85), image[..., :3])


def test_film_and_its_frames(backend, tmp_path):
    sample = backend.pipeline.run(prepare(cutout().image, 0.85), 32)
    film = NerfFilm(sample.field, views=4, size=32)
    assert len(film.frames) == 4 and film.frames[0].shape == (32, 32, 3)
    assert (film.frames[0][0, 0] >= 250).all() and (film.frames[0][16, 16] < 240).any()
    film.write_frames(tmp_path / "frames.zip")
    with zipfile.ZipFile(tmp_path / "frames.zip") as archive:
        assert archive.namelist() == [f"render_{number:03}.png" for number in range(4)]
        stored = np.array(Image.open(io.BytesIO(archive.read("render_002.png"))))
    np.testing.assert_array_equal(stored, film.frames[2])
    for ending in ("gif", "mp4"):
        film.write_film(tmp_path / f"film.{ending}")
    assert Image.open(tmp_path / "film.gif").n_frames == 4
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_film_is_attached(surface):
    assert set(surface.attachments) == {"nerf_video", "frames_file"}


def test_two_processes_give_the_same_bytes(folder, surface):
    code = f"""
import hashlib, sys, torch
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
torch.set_num_threads(2)
from onelook.report import Report
from onelook.backends import Setup
from triposr_backend.backend import TripoSRBackend
from onelook.foreground.foreground import Foreground
from onelook.options import parse_options
import numpy as np
image = np.load(sys.argv[1])
made = TripoSRBackend(Setup("cpu", weights={str(folder)!r})).generate(
    [Foreground(image, "alpha")], parse_options({{"mc_resolution": 64}}), Report())
print(hashlib.sha256(made.vertices.tobytes() + made.faces.tobytes()).hexdigest())
"""
    path = folder / "image.npy"
    np.save(path, cutout().image)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    wanted = hashlib.sha256(surface.vertices.tobytes() + surface.faces.tobytes()).hexdigest()
    assert done.stdout.strip() == wanted, done.stderr


class TestBadInput:
    def test_a_picture_without_a_subject(self, backend):
        empty = Foreground(np.zeros((64, 64, 4), np.uint8), "alpha")
        with pytest.raises(ForegroundError, match="every pixel is transparent"):
            backend.generate([empty], options(), Report())

    def test_numbers_that_are_not_finite(self):
        model = made_triposr()
        model.backbone.proj_in.bias.data[0] = float("nan")
        pipeline = TripoSRPipeline(model, "cpu")
        with pytest.raises(GenerationError, match="stage reconstruct: .* not finite; try another"):
            pipeline.run(prepare(cutout().image, 0.85))

    def test_an_empty_field(self):
        model = made_triposr()
        model.decoder.layers[4].bias.data[0] = -100
        with pytest.raises(GenerationError, match="stage extract: .* never crosses the level 25"):
            TripoSRPipeline(model, "cpu").run(prepare(cutout().image, 0.85), 32)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[1, 2", "config.yaml is no valid yaml"),
            ("- 1", "describes no TripoSR known here: it must hold a mapping"),
            (
                yaml.safe_dump(
                    CONFIG | {"image_tokenizer": {}, "decoder_cls": "tsr.other.Decoder"}
                ),
                "decoder_cls must be tsr.models.network_utils.NeRFMLP, got 'tsr.other.Decoder'",
            ),
            (
                yaml.safe_dump(
                    CONFIG | {"image_tokenizer": {"pretrained_model_name_or_path": "../x"}}
                ),
                "must be facebook/dino-vitb16 or a folder beside config.yaml",
            ),
        ],
    )
    def test_a_config_of_something_else(self, tmp_path, content, message):
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(WeightsError, match=message):
            read_config(tmp_path)

    def test_missing_and_wrong_weights(self, tmp_path):
        folder = write_triposr(tmp_path / "one")
        (folder / "model.ckpt").unlink()
        with pytest.raises(WeightsError, match=r"model\.ckpt is missing"):
            open_triposr(folder)
        torch.save({"decoder.layers.0.weight": torch.zeros(2)}, folder / "model.ckpt")
        with pytest.raises(WeightsError, match=r"model\.ckpt does not fit TripoSR"):
            open_triposr(folder)
        with pytest.raises(WeightsError, match="config.yaml is missing"):
            TripoSRBackend(Setup("cpu", weights=str(tmp_path)))

    def test_a_pickle_that_would_run_something(self, tmp_path):
        folder = write_triposr(tmp_path / "one")
        torch.save({"x": Path("/")}, folder / "model.ckpt")
        with pytest.raises(WeightsError, match="is refused"):
            open_triposr(folder)


def test_radius_of_the_body_is_the_made_one(backend):
    mesh = backend.pipeline.run(prepare(cutout().image, 0.85), 64).mesh
    assert abs(float(mesh.vertices.norm(dim=1).mean()) - RADIUS) < 0.02


@pytest.mark.gpu
def test_cuda_makes_the_same_ball(folder, backend):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    picture = prepare(cutout().image, 0.85)
    wanted = backend.pipeline.run(picture, 64)
    pipeline = TripoSRPipeline.open(folder, "cuda:0")
    first, again = (pipeline.run(picture, 64) for _ in range(2))
    assert torch.equal(first.mesh.vertices, again.mesh.vertices)
    assert torch.equal(first.mesh.faces, again.mesh.faces)
    torch.testing.assert_close(first.planes.cpu(), wanted.planes, rtol=1e-3, atol=1e-3)
    assert abs(len(first.mesh.faces) - len(wanted.mesh.faces)) < 0.01 * len(wanted.mesh.faces)
    assert abs(float(first.mesh.vertices.norm(dim=1).mean()) - RADIUS) < 0.02
