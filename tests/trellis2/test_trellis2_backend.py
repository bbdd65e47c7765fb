"""TRELLIS.2 as a backend: a cut-out becomes a surface with a material, and that a closed asset."""

import numpy as np
import pytest
from helpers.geometry import is_closed_and_oriented
from helpers.pictures import mushroom_png
from helpers.trellis2_checkpoint import TOKENS, write_dino3, write_trellis2

from onelook.asset.build import build_asset
from onelook.backends import Setup
from onelook.errors import WeightsError
from onelook.foreground.extract import extract_foreground
from onelook.options import Options
from onelook.report import Report
from trellis2_backend.backend import Trellis2Backend, order_of
from trellis2_backend.settings import TYPES

FEW = {"sparse_structure_steps": 2, "shape_slat_steps": 2, "tex_slat_steps": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return write_trellis2(folder / "trellis2"), write_dino3(folder / "dino3")


@pytest.fixture
def weights(folders, monkeypatch):
    monkeypatch.setenv("ONELOOK_TRELLIS2_WEIGHTS", str(folders[0]))
    monkeypatch.setenv("ONELOOK_DINOV3_VITL16_WEIGHTS", str(folders[1]))


@pytest.fixture(scope="module")
def foreground():
    return extract_foreground(mushroom_png(), True)


@pytest.mark.parametrize("name", TYPES)
def test_a_picture_becomes_a_surface(weights, foreground, name):
    backend, report = Trellis2Backend(Setup("cpu")), Report()
    surface = backend.generate([foreground], Options(pipeline_type=name, **FEW), report)
    low, high = surface.vertices.min(0), surface.vertices.max(0)
    # two tokens long along TRELLIS's x, one along its y and z: canonical x, -z and y
    assert np.allclose(low, -high, atol=1e-6)
    assert np.allclose(high - low, [1, 0.5, 0.5], atol=0.02)
    points = surface.vertices[::97]
    material = surface.appearance.sample(points, np.zeros_like(points))
    assert material.alpha.min() > 0.99
    assert material.base_color.std() > 0.05
    assert np.ptp(material.roughness) > 0.1
    figures = report.figures
    assert figures["tokens"] == TOKENS[name]
    assert figures["voxels"] == 4096 * TOKENS[name]
    assert figures["resolution"] == TYPES[name].resolution
    assert figures["residency.structure.seconds"] > 0
    assert report.seconds.keys() <= backend.step_shares.keys()


def test_the_surface_becomes_a_closed_textured_asset(weights, foreground):
    """And in a second backend the same bytes."""
    surfaces = [
        Trellis2Backend(Setup("cpu")).generate(
            [foreground], Options(pipeline_type="512", seed=seed, **FEW), Report()
        )
        for seed in (7, 7, 8)
    ]
    assets = [
        build_asset(surface, decimation_target=1500, texture_size=128, report=Report())
        for surface in surfaces
    ]
    asset, again, other = assets
    corners, faces = np.unique(asset.vertices, axis=0, return_inverse=True)
    assert is_closed_and_oriented(faces.reshape(-1)[asset.faces])
    assert asset.alpha_mode == "OPAQUE"
    assert np.ptp(asset.textures.base_color[..., :3].astype(int)) > 50
    assert np.array_equal(asset.vertices, again.vertices)
    assert np.array_equal(asset.textures.base_color, again.textures.base_color)
    assert not np.array_equal(asset.textures.base_color, other.textures.base_color)


def test_options_become_the_samplers_numbers(weights):
    settings = Trellis2Backend(Setup("cpu")).pipeline.settings
    order = order_of(
        Options(
            seed=9,
            pipeline_type="1536_cascade",
            sparse_structure_steps=5,
            sparse_structure_cfg=3.0,
            shape_slat_steps=6,
            shape_slat_cfg=4.0,
            tex_slat_steps=7,
            tex_slat_cfg=1.0,
        ),
        settings,
    )
    assert (order.seed, order.pipeline_type) == (9, "1536_cascade")
    got = [order.structure, order.shape, order.texture]
    assert [(one.steps, one.guidance_strength) for one in got] == [(5, 3.0), (6, 4.0), (7, 1.0)]
    own = [settings.structure, settings.shape, settings.texture]
    for one, wanted in zip(got, own, strict=True):  # what no option says
        assert one.rescale_t == wanted.rescale_t
        assert one.guidance_rescale == wanted.guidance_rescale
        assert one.guidance_interval == wanted.guidance_interval


def test_the_checkpoint_can_be_named_at_setup(folders, monkeypatch):
    monkeypatch.setenv("ONELOOK_DINOV3_VITL16_WEIGHTS", str(folders[1]))
    assert Trellis2Backend(Setup("cpu", weights=str(folders[0]))).pipeline.networks


def test_without_weights_the_remedy_is_named(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="onelook weights pull trellis2-4b"):
        Trellis2Backend(Setup("cpu"))
    with pytest.raises(WeightsError, match="onelook weights pull dinov3-vitl16"):
        Trellis2Backend(Setup("cpu", weights=str(folders[0])))


def test_progress_never_goes_back(weights, foreground):
    report = Report(lambda step, fraction: seen.append(report.overall(fraction)))
    seen = []
    backend = Trellis2Backend(Setup("cpu"))
    report.plan(backend.step_shares)
    backend.generate([foreground], Options(pipeline_type="1024_cascade", **FEW), report)
    assert seen == sorted(seen) and seen[0] == 0 and len(set(seen)) > 10
