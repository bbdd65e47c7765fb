"""A GPU makes the same object as the CPU, in its own types and however little memory it may use."""

import pytest
import torch
from helpers.trellis2_checkpoint import TOKENS, write_dino3, write_trellis2
from PIL import Image, ImageDraw

from trellis2_backend.dual_grid import DualGrid
from trellis2_backend.painting import PaintingPipeline
from trellis2_backend.pipeline import Order, Trellis2Pipeline
from trellis2_backend.settings import TYPES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return write_trellis2(root / "trellis2"), write_dino3(root / "dino3")


def picture():
    image = Image.new("RGBA", (90, 70))
    ImageDraw.Draw(image).ellipse([20, 10, 70, 60], fill=(200, 120, 40, 255))
    return image


def difference(got, wanted):
    return float((got.cpu() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("vram", ["auto", 1e-6])
def test_the_same_object(folders, name, vram):
    (wanted,) = Trellis2Pipeline.open(*folders, "cpu").run(picture(), Order(1, name))
    pipeline = Trellis2Pipeline.open(*folders, "cuda:0", vram)
    (got,) = pipeline.run(picture(), Order(1, name))
    assert got.tokens == TOKENS[name]
    assert torch.equal(got.coords.cpu(), wanted.coords)
    assert difference(got.mesh.vertices, wanted.mesh.vertices) < 0.01
    assert difference(got.attributes, wanted.attributes) < 0.1
    (again,) = pipeline.run(picture(), Order(1, name))
    assert torch.equal(again.attributes, got.attributes)
    pipeline.residency.release()


def test_the_same_paint(folders):
    checkpoint, dino = folders
    (sample,) = Trellis2Pipeline.open(checkpoint, dino, "cpu").run(picture(), Order(1, "512"))
    coords = sample.coords
    offsets = torch.full((len(coords), 3), 0.5)
    grid = DualGrid(coords, offsets, torch.ones(len(coords), 3, dtype=torch.bool), 512)
    wanted, got = (
        PaintingPipeline.open(checkpoint, checkpoint, dino, device).paint(grid, picture(), 4)
        for device in ("cpu", "cuda:0")
    )
    assert difference(got, wanted) < 0.1
