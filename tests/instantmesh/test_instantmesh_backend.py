"""InstantMesh through the engine, with a tiny checkpoint in the official layouts."""

import numpy as np
import pytest
import torch
from helpers.instantmesh_checkpoint import (
    HALF_AXES,
    MESH,
    NERF,
    write_all,
    write_config,
    write_reconstruction,
)
from helpers.pictures import mushroom_png
from PIL import Image

from instantmesh_backend.backend import CHECKPOINTS, TO_CANONICAL, InstantMeshBackend
from instantmesh_backend.cameras import FOCAL, orbit_matrices
from instantmesh_backend.config import RECONSTRUCTION
from instantmesh_backend.worker import mirrored
from onelook.asset.load import load_glb
from onelook.backends import BACKENDS, Setup
from onelook.canonical import CanonicalFrame
from onelook.engine import Engine
from onelook.errors import ForegroundError, WeightsError
from onelook.foreground.foreground import Foreground
from onelook.options import Options
from onelook.report import Report
from onelook.weights.manifest import checkpoint, manifest

SMALL = Options(
    model="instantmesh",
    diffusion_steps=2,
    decimation_target=2000,
    texture_size=256,
    generate_video=False,
    generate_views=True,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def weights(checkpoints, monkeypatch):
    zero123plus, instantmesh = checkpoints
    monkeypatch.setenv("ONELOOK_ZERO123PLUS_V1_2_WEIGHTS", str(zero123plus))
    monkeypatch.setenv("ONELOOK_INSTANTMESH_LARGE_WEIGHTS", str(instantmesh))
    monkeypatch.setenv("ONELOOK_INSTANTMESH_UNET_WEIGHTS", str(instantmesh))


@pytest.fixture(scope="module")
def backend(checkpoints):
    zero123plus, instantmesh = checkpoints
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONELOOK_ZERO123PLUS_V1_2_WEIGHTS", str(zero123plus))
        return InstantMeshBackend(Setup("cpu", weights=str(instantmesh)))


def foreground(side=96):
    """A disc on a transparent square."""
    rows, columns = np.indices((side, side)) - side / 2
    image = np.full((side, side, 4), 120, np.uint8)
    image[..., 3] = 255 * (rows**2 + columns**2 < (side / 3) ** 2)
    return Foreground(image, "alpha")


def test_a_picture_becomes_a_textured_asset(weights, tmp_path):
    engine = Engine(device="cpu")
    made = [engine.generate(mushroom_png(), SMALL, tmp_path, name) for name in ("a", "b")]
    asset = load_glb(made[0].files["model_file"])
    depth, width, height = np.array(HALF_AXES) / max(HALF_AXES)
    extent = np.ptp(asset.vertices, axis=0)
    assert extent[1] == pytest.approx(1, abs=0.01)
    assert extent == pytest.approx([width, height, depth], rel=0.1)
    assert asset.textures.base_color[..., :3].std() > 1
    figures = made[0].metrics
    assert figures["model"] == "instantmesh"
    assert {"seconds.condition", "seconds.views", "seconds.reconstruct"} <= figures.keys()
    assert figures["residency.views.seconds"] > 0
    with Image.open(made[0].files["views_image"]) as views:
        assert (views.size, views.mode, views.format) == ((640, 960), "RGB", "PNG")
    for name in ("model_file", "views_image"):
        first, second = (result.files[name].read_bytes() for result in made)
        assert first == second


@pytest.mark.parametrize(
    ("model", "variant", "config", "target"),
    [
        ("instantmesh-base", "instant-mesh-base", MESH, "src.models.lrm_mesh.InstantMesh"),
        ("instantnerf", "instant-nerf-large", NERF, "src.models.lrm.InstantNeRF"),
        ("instantnerf-base", "instant-nerf-base", NERF, "src.models.lrm.InstantNeRF"),
    ],
)
def test_every_published_variant_has_a_name(
    weights, monkeypatch, tmp_path, model, variant, config, target
):
    stem = variant.replace("-", "_")
    write_reconstruction(tmp_path / f"{stem}.ckpt", config)
    write_config(tmp_path / f"{variant}.yaml", "unet.bin", f"{stem}.ckpt", target)
    name = BACKENDS[model].weights[0].upper().replace("-", "_")
    monkeypatch.setenv(f"ONELOOK_{name}_WEIGHTS", str(tmp_path))
    options = Options(**{**vars(SMALL), "model": model, "generate_views": False})
    result = Engine(device="cpu").generate(mushroom_png(), options, tmp_path / "out")
    extent = np.ptp(load_glb(result.files["model_file"]).vertices, axis=0)
    depth, width, height = np.array(HALF_AXES) / max(HALF_AXES)
    assert extent == pytest.approx([width, height, depth], rel=0.1)


def test_axes_and_colours_are_turned_together(backend):
    """The tiny model's colours grow with its x (front), y (right) and z (up)."""
    surface = backend.generate([foreground()], SMALL, Report())
    points = surface.vertices
    normals = np.zeros_like(points)
    colors = surface.appearance.sample(points, normals).base_color
    assert np.ptp(points, axis=0).max() == pytest.approx(1, abs=1e-6)
    middle = points.max(axis=0) + points.min(axis=0)
    assert np.abs(middle).max() < 1e-6
    for axis, color in [(2, 0), (0, 1), (1, 2)]:  # +Z is x, +X is y, +Y is z
        assert np.corrcoef(points[:, axis], colors[:, color])[0, 1] > 0.98
    assert surface.faces.dtype == np.int32 and points.dtype == np.float32


def test_canonical_space_shows_what_the_pictures_camera_saw():
    """Points seen by InstantMesh's camera of the picture, and by one on +Z of canonical space: they
    lie at the same places of the picture, so left is left and up is up. Needs no network."""
    corners = np.array([[0.3, 0.1, 0.2], [-0.3, 0.4, -0.1], [0.2, -0.4, 0.3], [0.0, 0.1, -0.4]])
    world_to_camera = torch.linalg.inv(orbit_matrices([0], [0], radius=4.0)[0]).numpy()
    seen = corners @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]  # +x right, +y up, -z on
    picture = FOCAL * seen[:, :2] / -seen[:, 2:]
    canonical = corners @ np.array(TO_CANONICAL).T
    distance = 4.0 - canonical[:, 2:]  # of a camera on +Z that looks along -Z, +X right, +Y up
    np.testing.assert_allclose(FOCAL * canonical[:, :2] / distance, picture, atol=1e-6)
    assert np.linalg.det(TO_CANONICAL) == 1  # right-handed: a rotation, no mirror image


def test_canonical_space_and_the_original_exports(load_case):
    """The original's GLB is ours turned half round the vertical; its OBJ is a mirror image."""
    case = load_case("instantmesh/export_transforms")
    arrays, tolerance = case.arrays, case.info["tolerance"]
    ours = arrays["verts"] @ np.array(TO_CANONICAL).T
    np.testing.assert_allclose(ours * [-1, 1, -1], arrays["app_glb_verts"], **tolerance)
    np.testing.assert_array_equal(arrays["faces"], arrays["app_glb_faces"])
    vertices, faces = mirrored(arrays["verts"], arrays["faces"])
    np.testing.assert_allclose(vertices, arrays["run_obj_verts"], **tolerance)
    np.testing.assert_array_equal(faces, arrays["run_obj_faces"])
    frame = CanonicalFrame.around(arrays["verts"], np.array(TO_CANONICAL))
    assert np.ptp(frame.enter(arrays["verts"]), axis=0).max() == pytest.approx(1)


def test_a_picture_taken_as_it_is_is_not_framed(backend):
    """Framing crops to the subject, which another size of the square must not matter to."""
    views = {}
    for is_framed in (True, False):
        options = Options(**{**vars(SMALL), "preprocess_image": is_framed, "diffusion_steps": 1})
        for side in (96, 128):
            image = np.pad(foreground().image, [((side - 96) // 2,) * 2] * 2 + [(0, 0)])
            surface = backend.generate([Foreground(image, "alpha")], options, Report())
            views[is_framed, side] = surface.attachments["views_image"].args[0]
    assert np.array_equal(views[True, 96], views[True, 128])
    assert not np.array_equal(views[False, 96], views[False, 128])


def test_a_cut_out_without_a_subject(backend):
    empty = Foreground(np.zeros((64, 64, 4), np.uint8), "alpha")
    with pytest.raises(ForegroundError, match="every pixel is transparent"):
        backend.generate([empty], SMALL, Report())
    line = np.zeros((64, 64, 4), np.uint8)
    line[20:50, 30] = 255
    with pytest.raises(ForegroundError, match="one pixel wide"):
        backend.generate([Foreground(line, "alpha")], SMALL, Report())


def test_every_variant_has_its_checkpoint():
    assert CHECKPOINTS.keys() == RECONSTRUCTION.keys()
    for variant, name in CHECKPOINTS.items():
        (file,) = checkpoint(name).files
        assert file.path == f"{variant.replace('-', '_')}.ckpt"
        assert manifest().models[name] == (name, "instantmesh-unet", "zero123plus-v1.2")


def test_without_weights_the_remedy_is_named(checkpoints, monkeypatch, tmp_path):
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="onelook weights pull instantmesh-large"):
        InstantMeshBackend(Setup("cpu"))
    with pytest.raises(WeightsError, match="onelook weights pull zero123plus-v1.2"):
        InstantMeshBackend(Setup("cpu", weights=str(checkpoints[1])))
    monkeypatch.setenv("ONELOOK_ZERO123PLUS_V1_2_WEIGHTS", str(checkpoints[0]))
    write_reconstruction(tmp_path / "alone" / "instant_mesh_large.ckpt")
    with pytest.raises(WeightsError, match="onelook weights pull instantmesh-unet"):
        InstantMeshBackend(Setup("cpu", weights=str(tmp_path / "alone")))


def test_another_size_needs_its_yaml(checkpoints, monkeypatch, tmp_path):
    """Without it the file is taken for the published model, which it is not."""
    for name in ("instant_mesh_large.ckpt", "diffusion_pytorch_model.bin"):
        (tmp_path / name).symlink_to(checkpoints[1] / name)
    monkeypatch.setenv("ONELOOK_ZERO123PLUS_V1_2_WEIGHTS", str(checkpoints[0]))
    with pytest.raises(WeightsError, match="instant_mesh_large.ckpt does not fit InstantMesh"):
        InstantMeshBackend(Setup("cpu", weights=str(tmp_path)))
