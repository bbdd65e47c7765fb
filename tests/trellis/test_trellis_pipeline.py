"""The whole of TRELLIS on a tiny checkpoint in the official layout, and the recorded chain."""

import json
import shutil

import pytest
import torch
from helpers.fake_device import FakeDevice
from helpers.geometry import is_closed_and_oriented, signed_volume
from helpers.parity import Parity
from helpers.trellis_checkpoint import write_clip, write_dino, write_trellis
from PIL import Image, ImageDraw

from onelook.errors import ForegroundError, OptionError, WeightsError
from onelook.nn.condition import Condition
from onelook.nn.flow import flow_times, sample_flow
from onelook.nn.structure_vae import occupied
from onelook.nn.voxels import Voxels
from onelook.report import Report
from trellis_backend.networks import NETWORKS
from trellis_backend.pipeline import TrellisPipeline
from trellis_backend.sampler import (
    SamplerParams,
    guided_velocity,
    latent_velocities,
    structure_velocities,
    take_turns,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return write_trellis(root / "trellis"), write_dino(root / "dino")


@pytest.fixture(scope="module")
def pipeline(folders):
    return TrellisPipeline.open(*folders, device="cpu")


@pytest.fixture(scope="module")
def in_halves(folders):
    """The object of seed 1, the torso computed in the float16 it is stored in."""
    return reopen(folders, "cpu", host_type=torch.float16).run([picture()], seed=1)[0]


def reopen(folders, device, **more):
    opened = TrellisPipeline.open(*folders, device="cpu")
    return TrellisPipeline(opened.networks, opened.encoder, opened.settings, device, **more)


def picture(color=(200, 120, 40)):
    image = Image.new("RGBA", (90, 70))
    ImageDraw.Draw(image).ellipse([20, 10, 70, 60], fill=(*color, 255))
    return image


@torch.inference_mode()
def test_recorded_chain(load_case):
    case = Parity(load_case("trellis/pipeline_tiny"))
    config = case.config
    flow, decoder, latent_flow = (
        case.seed(NETWORKS[name](config[key]))
        for name, key in [
            ("SparseStructureFlowModel", "ss_flow"),
            ("SparseStructureDecoder", "ss_decoder"),
            ("SLatFlowModel", "slat_flow"),
        ]
    )
    params = SamplerParams(**config["sampler"])
    times = flow_times(params.steps, params.rescale_t)

    def sample(velocities, noise):
        turns = take_turns([Condition(case["cond"])], "stochastic")
        free = Condition.zero(case["cond"])
        return sample_flow(guided_velocity(velocities, turns, free, params.guidance), noise, times)

    latent = sample(structure_velocities(flow), case["noise_ss"])
    case.check("z", latent)
    logits = decoder(latent)
    case.check("logits", logits)
    coords = occupied(logits, case.case.info["threshold"])
    case.check("coords", coords)
    slat = sample(latent_velocities(latent_flow, Voxels(coords)), case["noise_slat"])
    official = load_case("trellis/slat_sampler_tiny").info["config"]  # has the normalisation
    mean, std = (torch.tensor(official[name]) for name in ("mean", "std"))
    case.check("slat", slat * std + mean)


def test_a_picture_becomes_an_object(pipeline):
    report = Report()
    (sample,) = pipeline.run([picture()], seed=3, report=report)
    assert list(report.seconds) == [
        "condition",
        "structure",
        "latent",
        "decode_mesh",
        "decode_gaussian",
        "decode_radiance_field",
    ]
    assert sample.coords.min() == 4 and sample.coords.max() == 11 and len(sample.coords) == 512
    vertices, faces = sample.mesh.vertices.numpy(), sample.mesh.faces.numpy()
    assert is_closed_and_oriented(faces)
    assert signed_volume(vertices, faces) == pytest.approx(0.51**3, rel=0.05)
    assert sample.mesh.attributes.shape == (len(vertices), 6)
    assert len(sample.gaussians) == 8 * 512
    assert sample.gaussians.positions.abs().max() < 0.3
    assert len(sample.radiance_field.position) == 512


def test_same_seed_same_numbers_and_only_what_was_asked(pipeline):
    one, again, other = (
        pipeline.run([picture()], seed=seed, formats=["gaussian"])[0] for seed in (5, 5, 6)
    )
    assert one.mesh is None and one.radiance_field is None
    assert torch.equal(one.latent, again.latent)
    assert torch.equal(one.gaussians.features, again.gaussians.features)
    assert not torch.equal(one.latent, other.latent)


def test_several_samples_begin_with_the_noise_of_one(pipeline):
    """The voxels of each, and a decoder's answer to each, are its own."""
    two = pipeline.run([picture()], seed=5, formats=["gaussian"], num_samples=2)
    assert len(two) == 2
    assert all(len(sample.gaussians) == 8 * len(sample.coords) for sample in two)
    assert not torch.equal(two[0].latent, two[1].latent)


def test_several_pictures(pipeline):
    pictures = [picture(color) for color in [(250, 20, 20), (20, 250, 20), (20, 20, 250)]]
    report = Report()

    def latent(count, mode="stochastic", **more):
        subjects = pictures[:count]
        return pipeline.run(subjects, 1, [], multi_image_mode=mode, report=report, **more)[0].latent

    same = torch.cat([latent(1), latent(1, "multidiffusion")]).view(2, -1)
    assert torch.equal(same[0], same[1])
    stochastic, mean = latent(3), latent(3, "multidiffusion")
    assert not torch.equal(stochastic, mean) and not torch.equal(stochastic, same[0].view_as(mean))
    assert not report.notes
    latent(3, structure=SamplerParams(2, 5.0, (0.5, 1.0), 3.0))
    assert report.notes == ["3 pictures take turns in 2 steps: the last 1 are not used"]


@torch.inference_mode()
def test_a_text_becomes_an_object(tmp_path):
    """The condition is all of CLIP's tokens, and guidance leads away from the empty text."""
    folder = write_trellis(tmp_path / "text", name="TrellisTextTo3DPipeline")
    pipeline = TrellisPipeline.open(folder, write_clip(tmp_path / "clip"), device="cpu")
    encoder = pipeline.encoder
    tokens = encoder.encode(["a red chair", "red " * 99], torch.device("cpu"))
    assert tokens.shape == (2, 77, 32)
    ids = encoder.tokenizer("a red chair")["input_ids"]
    end = encoder.network.config.eos_token_id
    padded = torch.tensor([ids + [end] * (77 - len(ids))])
    assert ids[-1] == end and len(ids) == 11  # begin, nine letters, end
    alone = encoder.network(input_ids=padded).last_hidden_state
    torch.testing.assert_close(tokens[:1], alone)
    empty = encoder.unconditional(tokens).tokens
    torch.testing.assert_close(empty, encoder.encode([""], tokens.device))
    assert not torch.equal(empty, tokens[:1])
    chair, table = (pipeline.run([text], 1, ["mesh"])[0] for text in ("a red chair", "a table"))
    assert len(chair.mesh.faces) and not torch.equal(chair.latent, table.latent)


@pytest.mark.parametrize("kind, most", [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_halves_come_near(folders, pipeline, kind, most):
    """The torso in half precision, as devices that have it compute it."""
    (exact,) = pipeline.run([picture()], seed=1)
    (got,) = reopen(folders, "cpu", host_type=kind).run([picture()], seed=1)
    assert torch.equal(got.coords, exact.coords)
    for name, part, wanted in [
        ("latent", got.latent, exact.latent),
        ("colours", got.gaussians.features, exact.gaussians.features),
        ("trivectors", got.radiance_field.trivec, exact.radiance_field.trivec),
    ]:
        assert part.dtype == torch.float32
        error = (part - wanted).norm() / wanted.norm()
        assert 0 < error < most, name
    assert len(got.mesh.faces) == pytest.approx(len(exact.mesh.faces), rel=0.02)


@pytest.mark.parametrize(
    "vram, level, streams", [("auto", "all", False), (0.004, "stage", False), (1e-6, "block", True)]
)
def test_low_memory_changes_nothing(folders, in_halves, vram, level, streams):
    """Networks that come and go, whole or block by block, compute the same bytes."""

    wanted = in_halves
    device = FakeDevice(2**30)
    pipeline = reopen(folders, device, vram=vram)
    (got,) = pipeline.run([picture()], seed=1)
    figures = pipeline.residency.metrics()
    assert figures["residency.level"] == level
    moved = figures["residency.moved_gb"] / figures["residency.weights_gb"]
    assert moved > 1 if streams else moved == 1  # streamed blocks come again for every step
    assert torch.equal(got.latent, wanted.latent)
    assert torch.equal(got.mesh.vertices, wanted.mesh.vertices)
    assert torch.equal(got.mesh.faces, wanted.mesh.faces)
    assert torch.equal(got.gaussians.features, wanted.gaussians.features)
    pipeline.residency.release()
    assert device.held == 0


def test_what_cannot_be_asked(pipeline):
    with pytest.raises(OptionError, match="formats may be mesh, gaussian, radiance_field, got 'x'"):
        pipeline.run([picture()], formats=["x"])
    with pytest.raises(OptionError, match="stochastic, multidiffusion, got 'both'"):
        pipeline.run([picture()], multi_image_mode="both")
    with pytest.raises(OptionError, match="this checkpoint takes pictures"):
        pipeline.run(["a chair"])
    with pytest.raises(OptionError, match="at least one subject"):
        pipeline.run([])
    with pytest.raises(ForegroundError):
        pipeline.run([Image.new("RGBA", (40, 40))])
    assert pipeline.run([picture()], formats=[])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "Other"}, "of Other; known here are TrellisImageTo3DPipeline"),
        ({"slat_normalization": {"mean": [0.0], "std": [1.0]}}, "slat_normalization gives 1, lat"),
        ({"slat_normalization": None}, "must hold the samplers and the latent's norm"),
        ({"slat_sampler": {"name": "DDIM", "params": {}}}, "must be FlowEuler.*, got DDIM"),
        ({"slat_decoder_mesh": "ckpts/slat_dec_gs_64"}, "latent_flow gives 16, mesh takes 64"),
        ({"slat_flow_model": None}, "names no slat_flow_model"),
        ({"slat_decoder_gs": "ckpts/missing"}, "missing.json is missing"),
    ],
)
def test_a_checkpoint_that_does_not_fit(folders, tmp_path, change, message):
    folder = tmp_path / "trellis"
    shutil.copytree(folders[0], folder, copy_function=lambda a, b: (folder / b).symlink_to(a))
    (folder / "pipeline.json").unlink()
    write_other_resolution(folder)
    content = json.loads((folders[0] / "pipeline.json").read_text())
    for key, value in change.items():
        level = content if key == "name" else content["args"]
        level = level["models"] if key in level.get("models", {}) else level
        if value is None:
            del level[key]
        else:
            level[key] = value
    (folder / "pipeline.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=message):
        TrellisPipeline.open(folder, folders[1], device="cpu")


def write_other_resolution(folder):
    """A copy of the mesh decoder for a finer latent."""
    config = json.loads((folder / "ckpts/slat_dec_mesh.json").read_text())
    config["args"]["resolution"] = 64
    (folder / "ckpts/slat_dec_gs_64.json").write_text(json.dumps(config))
    weights = (folder / "ckpts/slat_dec_mesh.safetensors").resolve()
    (folder / "ckpts/slat_dec_gs_64.safetensors").symlink_to(weights)
