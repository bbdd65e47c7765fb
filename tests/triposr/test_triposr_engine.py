"""TripoSR from a picture's file to files, through the engine."""

from pathlib import Path

import numpy as np
import trimesh
from helpers.triposr_checkpoint import write_triposr

from onelook.engine import Engine
from onelook.options import parse_options

TEAPOT = Path(__file__).parents[2] / "examples" / "teapot.png"


def test_a_picture_becomes_a_textured_asset(tmp_path):
    checkpoint = write_triposr(tmp_path / "checkpoint")
    options = parse_options(
        {
            "model": "triposr",
            "generate_video": False,
            "mc_resolution": 64,
            "decimation_target": 5000,
            "texture_size": 256,
        }
    )
    made = Engine("cpu", weights=str(checkpoint)).generate(TEAPOT, options, tmp_path / "out")
    mesh = trimesh.load(made.files["model_file"], force="mesh")
    assert 1000 < len(mesh.faces) <= 5000
    whole = mesh.copy()
    whole.merge_vertices(merge_tex=True, merge_norm=True)  # across the seams of the texture
    assert whole.is_watertight
    assert abs(np.ptp(mesh.vertices, axis=0).max() - 1) < 0.02
    color = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")).reshape(-1, 3)
    painted = color[(color > 0).any(axis=1)].mean(axis=0)
    assert painted[0] > painted[1] > painted[2]  # orange, as the checkpoint is made
    assert made.metrics["model"] == "triposr" and made.metrics["density_queries"] > 0
