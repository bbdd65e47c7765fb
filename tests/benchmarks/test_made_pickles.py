"""The made-up checkpoints of InstantMesh and TripoSR, at a tiny size: they open as the official
ones do, and the shape that the benchmark puts in their planes is what they find there."""

import json

import gpu_instantmesh
import gpu_triposr
import made_pickles
import numpy as np
import pytest
from helpers import instantmesh_checkpoint as tiny_instantmesh
from helpers import triposr_checkpoint as tiny_triposr
from helpers.geometry import is_closed_and_oriented, signed_volume
from made_checkpoints import KeyList
from made_triplane import RADIUS
from PIL import Image, ImageDraw

from instantmesh_backend import opening
from instantmesh_backend.pipeline import InstantMeshPipeline
from instantmesh_backend.reconstruction import build_reconstruction
from onelook.weights.locate import checkpoint_folder
from triposr_backend.pipeline import TripoSRPipeline

BALL = 4 / 3 * np.pi * RADIUS**3  # ripples cancel out but for their squares


@pytest.fixture
def key_lists(monkeypatch):
    """Those of the tiny networks in the places of the official ones."""
    lists = {}
    monkeypatch.setattr(made_pickles, "read_key_list", lambda _system, stem: lists[stem])

    def add(stem, network, config, prefix=""):
        shapes = {prefix + key: list(one.shape) for key, one in network.state_dict().items()}
        lists[stem] = KeyList("", config, shapes, dict.fromkeys(shapes, "F32"), None)

    return add


class Backend:
    def __init__(self, pipeline):
        self.pipeline = pipeline


def test_instantmesh(key_lists, tmp_path, monkeypatch):
    tiny = tiny_instantmesh
    key_lists("zero123plus_unet", opening.build_unet(tiny.UNET), tiny.UNET)
    key_lists("zero123plus_vae", opening.build_vae(tiny.VAE), tiny.VAE)
    # as large as the encoder that these files' settings prepare pictures for
    vision = {**tiny.VISION, "image_size": 224, "patch_size": 56}
    key_lists("zero123plus_vision_encoder", opening.build_vision(vision), vision)
    text = opening.build_text(tiny.TEXT)
    key_lists("zero123plus_text_encoder", text, tiny.TEXT, "text_model.")
    numbers = {"triplane_dim": tiny.MESH.triplane_dim}
    key_lists("instant_mesh_large", build_reconstruction(tiny.MESH), numbers)

    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path))
    for _ in range(2):  # what is there is kept
        made_pickles.make_zero123plus(tmp_path)
        folder = made_pickles.make_instantmesh(tmp_path)
    pipeline = InstantMeshPipeline.open(
        checkpoint_folder("zero123plus-v1.2"),
        checkpoint_folder("instantmesh-unet") / "diffusion_pytorch_model.bin",
        checkpoint_folder("instantmesh-large") / "instant_mesh_large.ckpt",
        tiny.MESH,
        device="cpu",
    )
    assert folder == checkpoint_folder("instantmesh-large")
    gpu_instantmesh.prepare(Backend(pipeline))
    picture = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(picture).ellipse([8, 8, 56, 56], fill=(200, 120, 40, 255))
    mesh = pipeline.run(picture, steps=1).mesh
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    assert is_closed_and_oriented(faces)
    assert signed_volume(vertices, faces) == pytest.approx(BALL, rel=0.05)
    colors = mesh.vertex_colors.numpy()
    for axis in range(3):
        assert np.corrcoef(vertices[:, axis], colors[:, axis])[0, 1] > 0.98


def test_triposr(key_lists, tmp_path):
    key_lists("model.ckpt", tiny_triposr.made_triposr(), tiny_triposr.CONFIG)
    folder = made_pickles.make_triposr(tmp_path)
    (folder / "dino").mkdir()
    (folder / "dino" / "config.json").write_text(json.dumps(tiny_triposr.ENCODER))
    pipeline = TripoSRPipeline.open(folder, device="cpu")
    gpu_triposr.prepare(Backend(pipeline))
    mesh = pipeline.run(np.full((64, 64, 3), 127, np.uint8), resolution=64).mesh
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    assert is_closed_and_oriented(faces)
    reach = pipeline.model.config.renderer.radius
    assert signed_volume(vertices / reach, faces) == pytest.approx(BALL, rel=0.05)
