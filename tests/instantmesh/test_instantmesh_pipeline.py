"""The whole of InstantMesh on a tiny checkpoint in the official layouts."""

import numpy as np
import pytest
import torch
from helpers.fake_device import FakeDevice
from helpers.geometry import is_closed_and_oriented, signed_volume
from helpers.instantmesh_checkpoint import (
    HALF_AXES,
    MESH,
    NERF,
    write_reconstruction,
    write_unet,
    write_zero123plus,
)
from PIL import Image, ImageDraw

from instantmesh_backend.opening import open_zero123plus
from instantmesh_backend.pipeline import InstantMeshPipeline
from instantmesh_backend.reconstruction import open_reconstruction
from onelook.errors import ForegroundError, GenerationError, OptionError, PictureError
from onelook.report import Report

ELLIPSOID = 4 / 3 * np.pi * np.prod(HALF_AXES)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return (
        write_zero123plus(root / "zero123plus"),
        write_unet(root / "diffusion_pytorch_model.bin"),
        write_reconstruction(root / "instant_mesh_large.ckpt"),
    )


@pytest.fixture(scope="module")
def pipeline(files):
    return InstantMeshPipeline.open(*files, MESH, device="cpu")


@pytest.fixture(scope="module")
def sample(pipeline):
    return pipeline.run(picture(), seed=1, steps=2)


def reopen(files, device="cpu", **more):
    zero123plus = open_zero123plus(*files[:2])
    reconstruction = open_reconstruction(files[2], MESH)
    return InstantMeshPipeline(zero123plus, reconstruction, device, **more)


def picture(color=(200, 120, 40), mode="RGBA"):
    image = Image.new("RGBA", (90, 90))
    ImageDraw.Draw(image).ellipse([20, 10, 70, 80], fill=(*color, 255))
    return image.convert(mode)


def test_a_picture_becomes_an_object(pipeline):
    report = Report()
    made = pipeline.run(picture(), seed=3, steps=2, report=report)
    assert list(report.seconds) == ["condition", "views", "decode_views", "reconstruct", "extract"]
    assert made.views.shape == (960, 640, 3) and made.views.dtype == np.uint8
    assert made.views.std() > 1
    assert made.planes.shape == (1, 3, 8, 32, 32) and made.planes.dtype == torch.float32
    vertices, faces = made.mesh.vertices.numpy(), made.mesh.faces.numpy()
    assert is_closed_and_oriented(faces)
    assert signed_volume(vertices, faces) == pytest.approx(ELLIPSOID, rel=0.1)  # few texels
    for axis, half in enumerate(HALF_AXES):
        assert np.ptp(vertices[:, axis]) == pytest.approx(2 * half, rel=0.12)
        colors = made.mesh.vertex_colors.numpy()[:, axis]
        assert np.corrcoef(vertices[:, axis], colors)[0, 1] > 0.98
    assert pipeline.residency.metrics()["residency.views.seconds"] > 0


def test_same_seed_same_numbers(pipeline, files, sample):
    """Also in a pipeline that has computed its constants before, and in one that has not."""
    for again in (pipeline, reopen(files)):
        got = again.run(picture(), seed=1, steps=2)
        assert np.array_equal(got.views, sample.views)
        assert torch.equal(got.planes, sample.planes)
        assert torch.equal(got.mesh.vertices, sample.mesh.vertices)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"steps": 3},
        {"guidance_scale": 2.0},
        {"guidance_scale": 1.0},
        {"picture": picture((10, 20, 200))},
    ],
    ids=lambda change: " ".join(change),
)
def test_everything_asked_for_counts(pipeline, sample, change):
    other = pipeline.run(**{"picture": picture(), "seed": 1, "steps": 2, **change})
    assert not np.array_equal(other.views, sample.views)
    assert not torch.equal(other.planes, sample.planes)
    assert len(other.mesh.faces)


def test_a_cut_out_is_the_same_as_the_picture_on_white(pipeline, sample):
    white = Image.new("RGB", (90, 90), (255, 255, 255))
    white.paste(picture(), mask=picture().getchannel("A"))
    assert np.array_equal(pipeline.run(white, seed=1, steps=2).views, sample.views)


def test_progress_goes_step_by_step(pipeline):
    seen = []
    report = Report(on_progress=lambda step, fraction: seen.append((step, round(fraction, 2))))
    pipeline.run(picture(), steps=4, report=report)
    views = [fraction for step, fraction in seen if step == "views"]
    assert views == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_halves_come_near(files, sample):
    """As a GPU computes the views; the reconstruction stays in single precision."""
    halves = reopen(files, in_halves=True)
    got = halves.run(picture(), seed=1, steps=2)
    kinds = [
        {tensor.dtype for tensor in network.parameters()}
        for network in (halves.zero123plus.unet, halves.zero123plus.vae, halves.zero123plus.vision)
    ]
    assert kinds == [{torch.float16}] * 3
    assert got.planes.dtype == torch.float32
    assert {one.dtype for one in halves.reconstruction.parameters()} == {torch.float32}
    difference = got.views.astype(float) - sample.views
    assert 0 < np.abs(difference).mean() < 2


@pytest.mark.parametrize(
    "vram, level, streams",
    [("auto", "all", False), (1.0007, "stage", False), (1e-6, "block", True)],
)
def test_low_memory_changes_nothing(files, sample, vram, level, streams):
    """Networks that come and go, whole or block by block, compute the same bytes."""
    device = FakeDevice(2**31)
    pipeline = reopen(files, device, vram=vram)
    got = pipeline.run(picture(), seed=1, steps=2)
    figures = pipeline.residency.metrics()
    assert figures["residency.level"] == level
    moved = figures["residency.moved_gb"] / figures["residency.weights_gb"]
    assert moved > 1 if streams else moved >= 1
    assert np.array_equal(got.views, sample.views)
    assert torch.equal(got.mesh.vertices, sample.mesh.vertices)
    points = got.mesh.vertices[:7]
    wanted = sample.mesh.colors(points)
    pipeline.residency.release()
    assert torch.equal(got.mesh.colors(points), wanted)  # asked when no network is there any more
    assert device.held == 0


def test_the_nerf_models_make_the_same_object(files, tmp_path):
    path = write_reconstruction(tmp_path / "instant_nerf_large.ckpt", NERF)
    pipeline = InstantMeshPipeline.open(*files[:2], path, NERF, device="cpu")
    mesh = pipeline.run(picture(), steps=1).mesh
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    assert is_closed_and_oriented(faces)
    assert signed_volume(vertices, faces) == pytest.approx(ELLIPSOID, rel=0.11)


def test_what_cannot_be_asked(pipeline):
    with pytest.raises(PictureError, match="31 x 90 pixels; its shorter side must .* least 32"):
        pipeline.run(picture().resize((31, 90)))
    with pytest.raises(PictureError, match="RGB or RGBA, got mode L"):
        pipeline.run(picture(mode="L"))
    with pytest.raises(ForegroundError, match="every pixel is transparent"):
        pipeline.run(Image.new("RGBA", (64, 64)))
    with pytest.raises(OptionError, match="steps must be at least 1, got 0"):
        pipeline.run(picture(), steps=0)


@pytest.mark.parametrize(
    "network, key, value, message",
    [
        ("unet", "conv_out.bias", torch.nan, "stage views with seed 9: .* not finite"),
        ("vision", "visual_projection.weight", torch.inf, "stage views with seed 9: .* finite"),
        ("reconstruction", "transformer.deconv.bias", torch.nan, "extract with seed 9: .* finite"),
    ],
)
def test_a_network_that_fails(pipeline, network, key, value, message):
    """The next request works."""
    where = pipeline if network == "reconstruction" else pipeline.zero123plus
    tensor = dict(getattr(where, network).named_parameters())[key]
    before = tensor.clone()
    tensor.data = torch.full_like(tensor, value)
    try:
        with pytest.raises(GenerationError, match=message):
            pipeline.run(picture(), seed=9, steps=1)
    finally:
        tensor.data = before
    assert len(pipeline.run(picture(), seed=9, steps=1).mesh.faces)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("vram", ["auto", 0.0005])
def test_a_gpu_makes_the_same_object(files, sample, vram):
    """Same seed, same noise; several references are one batch there, in half precision."""
    pipeline = reopen(files, "cuda:0", vram=vram)
    got = pipeline.run(picture(), seed=1, steps=2)
    assert np.abs(got.views.astype(float) - sample.views).mean() < 2
    assert torch.equal(got.mesh.vertices, pipeline.run(picture(), seed=1, steps=2).mesh.vertices)
    moved = (got.mesh.vertices.amax(0).cpu() - sample.mesh.vertices.amax(0)).abs().max()
    assert moved < 0.01
