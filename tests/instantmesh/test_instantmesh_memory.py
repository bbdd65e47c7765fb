"""What the stages of the large model need on a GPU, worked out on the meta device.

Shapes and types are those of a GPU; what an attention kernel or a library needs within is not seen.
"""

import pytest
import torch
from helpers.golden import GOLDEN
from helpers.live_bytes import LiveBytes
from helpers.manifests import load_key_list

from instantmesh_backend.config import RECONSTRUCTION, MeshConfig
from instantmesh_backend.decoder_heads import ShapeField
from instantmesh_backend.extract_mesh import lattice_axis
from instantmesh_backend.opening import build_unet, build_vae
from instantmesh_backend.pipeline import WORKING_BYTES
from instantmesh_backend.reconstruction import build_reconstruction
from instantmesh_backend.reference_attention import install
from instantmesh_backend.sampler import Schedule
from instantmesh_backend.zero123plus import (
    STEPS_TOGETHER_ON_GPU,
    ReferenceDenoiser,
    ViewCondition,
)
from onelook.weights.opening import build_empty

HALF = {"dtype": torch.float16, "device": "meta"}
FULL = {"dtype": torch.float32, "device": "meta"}


def network(build, name):
    config = load_key_list(GOLDEN / "instantmesh" / "manifest" / f"{name}.json").config
    return build_empty(lambda: build(config)).half().eval()


def condition():
    """Without the vision encoder, whose 257 tokens are nothing beside pixels."""
    vae = network(build_vae, "zero123plus_vae")
    picture = torch.empty(1, 3, 512, 512, **HALF)
    return lambda: vae.encode(picture)


def views():
    unet = network(build_unet, "zero123plus_unet")
    install(unet)
    given = ViewCondition(torch.empty(2, 77, 1024, **HALF), torch.empty(2, 4, 64, 64, **FULL))
    steps = STEPS_TOGETHER_ON_GPU
    schedule = Schedule(torch.empty(steps, **FULL), torch.ones(steps + 1), torch.ones(()))
    noise = torch.empty(steps, 2, 4, 64, 64, **FULL)
    denoiser = ReferenceDenoiser(unet, given, schedule, noise, steps)
    latents = torch.empty(1, 4, 120, 80, **FULL)

    def work():
        for step in range(2):  # the references' pass and two of the views'
            assert denoiser(step, latents).shape == (2, 4, 120, 80)

    return work


def decode_views():
    vae = network(build_vae, "zero123plus_vae")
    latents = torch.empty(1, 4, 120, 80, **HALF)
    return lambda: vae.decode(latents, return_dict=False)


def reconstruct():
    config = RECONSTRUCTION["instant-mesh-large"]
    assert isinstance(config, MeshConfig)
    model = build_empty(lambda: build_reconstruction(config)).eval()
    images, cameras = torch.empty(1, 6, 3, 320, 320, **FULL), torch.empty(1, 6, 16, **FULL)

    def work():
        planes = model.forward_planes(images, cameras)
        axis = lattice_axis(config.grid_res, config.grid_scale, torch.device("meta"))
        field = ShapeField(planes[0], model.synthesizer.decoder)
        assert len(field.sdf(torch.cartesian_prod(axis, axis, axis))) == 129**3

    return work


@torch.inference_mode()
@pytest.mark.parametrize("stage", [condition, views, decode_views, reconstruct])
def test_a_stage_fits(stage):
    work = stage()
    with LiveBytes() as live:
        work()
    wanted = WORKING_BYTES[stage.__name__]
    assert 0.9 * wanted < live.peak < wanted
