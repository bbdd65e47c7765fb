"""TRELLIS through the engine, with a tiny checkpoint in the official layout."""

import numpy as np
import pytest
from helpers.pictures import mushroom_png
from helpers.trellis_checkpoint import write_dino, write_trellis

from onelook.asset.load import load_glb
from onelook.engine import Engine
from onelook.errors import PictureError, WeightsError
from onelook.options import Options

SMALL = Options(
    model="trellis",
    sparse_structure_steps=2,
    slat_steps=2,
    decimation_target=2000,
    texture_size=256,
    generate_video=False,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return write_trellis(folder / "trellis"), write_dino(folder / "dino")


@pytest.fixture
def weights(checkpoints, monkeypatch):
    trellis, dino = checkpoints
    monkeypatch.setenv("ONELOOK_TRELLIS_WEIGHTS", str(trellis))
    monkeypatch.setenv("ONELOOK_DINOV2_WITH_REGISTERS_LARGE_WEIGHTS", str(dino))


def test_a_picture_becomes_a_textured_asset(weights, tmp_path):
    engine = Engine(device="cpu")
    made = [engine.generate(mushroom_png(), SMALL, tmp_path, name) for name in ("a", "b")]
    asset = load_glb(made[0].files["model_file"])
    extent = asset.vertices.max(axis=0) - asset.vertices.min(axis=0)
    assert np.isclose(extent.max(), 1.0, atol=1e-3)
    assert asset.textures.base_color[..., :3].std() > 1  # the Gaussians' colours, not one grey
    figures = made[0].metrics
    assert figures["model"] == "trellis" and figures["voxels"] > 0
    assert {"seconds.condition", "seconds.structure", "seconds.latent"} <= figures.keys()
    assert figures["residency.structure.seconds"] > 0
    first, second = (result.files["model_file"].read_bytes() for result in made)
    assert first == second


def test_further_pictures_and_the_gaussians(weights, tmp_path):
    """Another view changes the asset in either mode; the Gaussians open as a point cloud."""
    engine, made = Engine(device="cpu"), {}
    for mode in ("none", "stochastic", "multidiffusion"):
        views = [] if mode == "none" else [mushroom_png(200), mushroom_png(120)]
        wish = {} if mode == "none" else {"multi_image_mode": mode}
        options = Options(**{**vars(SMALL), **wish, "generate_gaussian": True})
        made[mode] = engine.generate(mushroom_png(), options, tmp_path, mode, images=views)
    clouds = [result.files["gaussian_file"].read_bytes() for result in made.values()]
    assert len(set(clouds)) == 3
    assert clouds[0].startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex ")
    assert made["stochastic"].metrics["pictures"] == 3
    assert made["none"].files["gaussian_file"].name == "none_gaussians.ply"


def test_only_the_gaussians_can_be_asked_for(weights, tmp_path):
    options = Options(**{**vars(SMALL), "generate_model": False, "generate_gaussian": True})
    result = Engine(device="cpu").generate(mushroom_png(), options, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["output_gaussians.ply"]
    assert "seconds.bake" not in result.metrics


def test_a_further_picture_that_cannot_be_used_is_named(weights, tmp_path):
    with pytest.raises(PictureError, match="picture 2 of images"):
        Engine(device="cpu").generate(
            mushroom_png(), SMALL, tmp_path / "out", images=[mushroom_png(), b"no picture"]
        )
    assert not (tmp_path / "out").exists()


def test_another_seed_makes_another_asset(weights, tmp_path):
    engine = Engine(device="cpu")
    seeds = [
        engine.generate(
            mushroom_png(), Options(**{**vars(SMALL), "seed": seed}), tmp_path, str(seed)
        )
        for seed in (1, 2)
    ]
    one, two = (result.files["model_file"].read_bytes() for result in seeds)
    assert one != two


def test_the_checkpoint_can_be_named_at_setup(checkpoints, monkeypatch, tmp_path):
    trellis, dino = checkpoints
    monkeypatch.setenv("ONELOOK_DINOV2_WITH_REGISTERS_LARGE_WEIGHTS", str(dino))
    engine = Engine(device="cpu", weights=str(trellis))
    assert engine.generate(mushroom_png(), SMALL, tmp_path).files["model_file"].is_file()


def test_without_weights_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ONELOOK_TRELLIS_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="onelook weights pull trellis-image-large"):
        Engine(device="cpu").generate(mushroom_png(), SMALL, tmp_path / "out")
    assert not (tmp_path / "out").exists()
