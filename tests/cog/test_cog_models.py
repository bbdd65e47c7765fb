"""The neural models behind the real Cog server, with tiny checkpoints in the official layouts."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import trimesh
from helpers.cog_server import CogServer, data_url, decode_data_url
from helpers.gltf_check import check_glb
from helpers.instantmesh_checkpoint import write_all
from helpers.pictures import mushroom_png
from helpers.trellis2_checkpoint import write_dino3, write_trellis2
from helpers.trellis_checkpoint import write_dino, write_trellis
from helpers.triposr_checkpoint import write_triposr
from PIL import Image

PICTURE = data_url(mushroom_png())
SMALL = {
    "decimation_target": 1000,
    "texture_size": 256,
    "generate_video": False,
    "sparse_structure_steps": 2,
    "slat_steps": 2,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A server whose setup finds the tiny checkpoints."""
    folder = tmp_path_factory.mktemp("models")
    zero123plus, instantmesh = write_all(folder / "instantmesh")
    places = {
        "ONELOOK_TRELLIS2_WEIGHTS": write_trellis2(folder / "trellis2"),
        "ONELOOK_DINOV3_VITL16_WEIGHTS": write_dino3(folder / "dino3"),
        "ONELOOK_TRIPOSR_WEIGHTS": write_triposr(folder / "triposr"),
        "ONELOOK_ZERO123PLUS_V1_2_WEIGHTS": zero123plus,
        "ONELOOK_INSTANTMESH_LARGE_WEIGHTS": instantmesh,
        "ONELOOK_INSTANTMESH_UNET_WEIGHTS": instantmesh,
        "ONELOOK_TRELLIS_WEIGHTS": write_trellis(folder / "trellis"),
        "ONELOOK_DINOV2_WITH_REGISTERS_LARGE_WEIGHTS": write_dino(folder / "dino"),
    }
    with CogServer(folder, environment={k: str(v) for k, v in places.items()}) as running:
        yield running


def test_trellis_makes_a_model_of_several_pictures_and_its_gaussians(models, tmp_path):
    more = [data_url(mushroom_png(size)) for size in (100, 140)]
    answer = models.predict(
        PICTURE, images=more, model="trellis", generate_gaussian=True, **SMALL
    ).body
    assert answer["status"] == "succeeded", answer["error"]
    output = answer["output"]
    assert answer["metrics"]["pictures"] == 3
    assert answer["metrics"]["seconds"]["latent"] > 0
    glb = tmp_path / "model.glb"
    glb.write_bytes(decode_data_url(output["model_file"])[1])
    check_glb(glb)
    loaded = trimesh.load(glb, force="mesh")
    assert np.isclose(loaded.extents.max(), 1, atol=1e-3)
    cloud = trimesh.load(io.BytesIO(decode_data_url(output["gaussian_file"])[1]), file_type="ply")
    assert len(cloud.vertices) > 100


def test_instantmesh_makes_a_model_and_shows_its_views(models, tmp_path):
    wish = {"model": "instantmesh", "diffusion_steps": 2, "generate_views": True}
    answer = models.predict(PICTURE, **SMALL, **wish).body
    assert answer["status"] == "succeeded", answer["error"]
    (tmp_path / "model.glb").write_bytes(decode_data_url(answer["output"]["model_file"])[1])
    check_glb(tmp_path / "model.glb")
    views = Image.open(io.BytesIO(decode_data_url(answer["output"]["views_image"])[1]))
    assert views.width * 3 == views.height * 2  # three rows of two squares
    assert answer["metrics"]["seconds"]["views"] > 0


@pytest.mark.parametrize("pipeline_type", ["512", "1024_cascade"])
def test_trellis2_makes_a_model(models, tmp_path, pipeline_type):
    steps = {"shape_slat_steps": 2, "tex_slat_steps": 2, "pipeline_type": pipeline_type}
    answer = models.predict(PICTURE, model="trellis2", **SMALL, **steps).body
    assert answer["status"] == "succeeded", answer["error"]
    (tmp_path / "model.glb").write_bytes(decode_data_url(answer["output"]["model_file"])[1])
    glb = check_glb(tmp_path / "model.glb")
    assert "metallic_roughness" in glb.images
    assert answer["metrics"]["resolution"] == {"512": 512, "1024_cascade": 1024}[pipeline_type]
    assert answer["metrics"]["watertight"] is True


def test_triposr_makes_a_model_and_films_its_field(models, tmp_path):
    wish = {"mc_resolution": 48, "bake_texture": False, "generate_frames": True}
    film = {"generate_video": True, "video_source": "nerf", "video_format": "gif"}
    answer = models.predict(PICTURE, model="triposr", **(SMALL | wish | film)).body
    assert answer["status"] == "succeeded", answer["error"]
    output = {name: decode_data_url(text)[1] for name, text in answer["output"].items() if text}
    assert set(output) == {"model_file", "video", "frames_file"}
    assert len(trimesh.load(io.BytesIO(output["model_file"]), file_type="glb").geometry) == 1
    assert Image.open(io.BytesIO(output["video"])).n_frames == 30
    assert len(zipfile.ZipFile(io.BytesIO(output["frames_file"])).namelist()) == 30


def test_a_failed_stage_is_told_and_the_next_request_works(models):
    failed = models.predict(PICTURE, images=["data:image/png;base64,aGFsbG8="], model="trellis")
    assert "picture 1 of images" in failed.error
    again = models.predict(PICTURE, model="trellis", generate_model=True, **SMALL).body
    assert again["status"] == "succeeded", again["error"]
