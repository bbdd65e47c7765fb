"""The whole of TRELLIS.2 on a tiny checkpoint in the official layout, and the recorded latents."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from helpers.fake_device import FakeDevice
from helpers.geometry import edge_uses
from helpers.golden import GOLDEN, seed_weights
from helpers.parity import Parity
from helpers.trellis2_checkpoint import TOKENS, write_dino3, write_trellis2
from PIL import Image, ImageDraw
from torch import nn

from onelook.errors import ForegroundError, GenerationError, OptionError, WeightsError
from onelook.nn.voxels import Voxels
from onelook.report import Report
from onelook.weights.layouts import Pipeline
from trellis2_backend.dual_grid import DualGrid
from trellis2_backend.networks import NETWORKS, exact_keys
from trellis2_backend.painting import PaintingPipeline
from trellis2_backend.pipeline import DECODING, Order, Trellis2Pipeline, quantised
from trellis2_backend.sampler import SamplerParams
from trellis2_backend.settings import TYPES, Normalization, Settings, read_settings


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return write_trellis2(root / "trellis2"), write_dino3(root / "dino3")


@pytest.fixture(scope="module")
def pipeline(folders):
    return Trellis2Pipeline.open(*folders, device="cpu")


def reopen(folders, device, **more):
    opened = Trellis2Pipeline.open(*folders, device="cpu")
    return Trellis2Pipeline(opened.networks, opened.encoder, opened.settings, device, **more)


def picture(color=(200, 120, 40)):
    image = Image.new("RGBA", (90, 70))
    ImageDraw.Draw(image).ellipse([20, 10, 70, 60], fill=(*color, 255))
    return image


SIDE = 64  # of the grid that the structure is decoded to


class RecordedOccupancy(nn.Module):
    """Stands where the recorded runs had a stand-in: voxels of 64^3 that were given."""

    def __init__(self, voxels, flow):
        super().__init__()
        self.voxels = voxels
        self.blocks = nn.ModuleList()
        doublings = (SIDE // flow["resolution"]).bit_length() - 1
        self.config = SimpleNamespace(
            latent_channels=flow["out_channels"], channels=[0] * (1 + doublings)
        )

    def forward(self, latent):
        logits = -torch.ones(len(latent), 1, SIDE, SIDE, SIDE)
        x, y, z = self.voxels.unbind(1)
        logits[:, 0, x, y, z] = 1.0
        return logits


class RecordedCondition:
    """The conditions that were given, by the side of the picture."""

    blocks = ()

    def __init__(self, case):
        self.network = nn.Identity()
        self.width = case["cond_512"].shape[-1]
        self.tokens = {side: case[f"cond_{side}"] for side in (512, 1024)}

    def encode(self, pictures, side, device):
        return self.tokens[side]


def recorded_pipeline(case):
    config, seed = case.config, case.case.info["weights_seed"]

    def build(name, key, seed=seed):
        return seed_weights(NETWORKS[name](config[key]), seed).eval()

    networks = {
        "structure_flow": build("SparseStructureFlowModel", "ss_flow"),
        "structure_decoder": RecordedOccupancy(case["occupied"], config["ss_flow"]),
        "shape_flow_512": build("SLatFlowModel", "slat_flow_shape"),
        "shape_flow_1024": build("SLatFlowModel", "slat_flow_shape", seed + 1),
        "shape_decoder": build("FlexiDualGridVaeDecoder", "shape_decoder"),
        "texture_flow_512": build("SLatFlowModel", "slat_flow_tex"),
        "texture_flow_1024": build("SLatFlowModel", "slat_flow_tex", seed + 1),
    }
    samplers = [SamplerParams(**config["samplers"][name]) for name in ("ss", "shape", "tex")]
    norms = [Normalization(**config[f"{name}_slat_normalization"]) for name in ("shape", "tex")]
    settings = Settings(*samplers, *norms, "1024_cascade")
    networks["texture_decoder"] = NETWORKS["SparseUnetVaeDecoder"](
        {**config["shape_decoder"], "out_channels": 6, "pred_subdiv": False}
    )
    return Trellis2Pipeline(networks, RecordedCondition(case), settings, "cpu")


@pytest.mark.parametrize("name", TYPES)
def test_recorded_latents(load_case, name):
    case = Parity(load_case("trellis2/run_latents"))
    pipeline = recorded_pipeline(case)
    latents = pipeline.sample(picture(), Order(case.case.info["run_seed"], name))
    assert latents.resolution == case.config["results"][name]["resolution"]
    case.check(f"{name}.z_s", latents.structure)
    case.check(f"{name}.coords", latents.shape.voxels.coords)
    case.check(f"{name}.shape_slat", latents.shape.feats)
    case.check(f"{name}.tex_slat", latents.texture)


def test_recorded_voxels_between_the_flows(load_case, monkeypatch):
    case = Parity(load_case("trellis2/run_latents"))
    seen = []

    def noting(coords, resolution):
        seen.append(coords)
        return quantised(coords, resolution)

    monkeypatch.setattr("trellis2_backend.pipeline.quantised", noting)
    order = Order(case.case.info["run_seed"], "1024_cascade")
    recorded_pipeline(case).sample(picture(), order)
    case.check("1024_cascade.upsampled_coords", seen[0])


def test_recorded_step_down(load_case, pipeline):
    """Which resolution a cascade settles for, and where its tokens are."""
    case = Parity(load_case("trellis2/cascade_quantisation"))
    counts = case.case.info["token_counts"]
    for resolution, count in counts.items():
        assert len(quantised(case["hr_coords"], int(resolution))) == count
    noise = torch.Generator()
    mean, std = case["norm_mean"].tolist(), case["norm_std"].tolist()
    for name, run in case.config.items():
        coords, resolution = chosen(pipeline, case, run["resolution"], run["max_num_tokens"])
        assert resolution == run["resolution_out"]
        case.check(f"{name}.coords", coords)
        noise.manual_seed(case.case.info["weights_seed"])
        coarse, fine = (  # the sampler gave the noise back
            Normalization(mean, std).undo(torch.randn(count, len(mean), generator=noise))
            for count in (len(case["lr_coords"]), len(coords))
        )
        case.check("lr_slat_given_to_upsample", coarse)
        case.check(f"{name}.feats", fine)


def chosen(pipeline, case, resolution, most_tokens):
    """What the pipeline's own stage makes of the recorded voxels."""
    decoder = SimpleNamespace(
        config=SimpleNamespace(doublings=4),
        upsample=lambda shape, doublings: Voxels(case["hr_coords"]),
    )
    run = pipeline._begin(Order(0, f"{resolution}_cascade", most_tokens=most_tokens), Report())
    object.__setattr__(run, "networks", {"shape_decoder": decoder})
    voxels, resolution = run._finer_places(None)
    return voxels.coords, resolution


def test_recorded_normalisation(load_case):
    case = Parity(load_case("trellis2/latent_normalisation"))
    shape, texture = (
        Normalization(**case.config[f"{name}_slat_normalization"]) for name in ("shape", "tex")
    )
    case.check("concat_cond", shape.apply(case["shape_slat"]))
    case.check("tex_slat", texture.undo(case["noise"]))  # its sampler gave the noise back
    torch.testing.assert_close(shape.undo(shape.apply(case["shape_slat"])), case["shape_slat"])


def test_official_settings():
    content = json.loads((GOLDEN / "trellis2/manifest/pipeline.json").read_text())["content"]
    args = dict(content["args"])
    models = args.pop("models")
    settings = read_settings(Pipeline(content["name"], models, args, GOLDEN))
    assert settings.structure == SamplerParams(12, 7.5, 0.7, (0.6, 1.0), 5.0)
    assert settings.shape == SamplerParams(12, 7.5, 0.5, (0.6, 1.0), 3.0)
    assert settings.texture == SamplerParams(12, 1.0, 0.0, (0.6, 0.9), 3.0)
    assert len(settings.shape_norm.mean) == len(settings.texture_norm.std) == 32
    assert settings.pipeline_type == "1024_cascade"


@pytest.mark.parametrize("name", TYPES)
def test_a_picture_becomes_an_object(pipeline, name):
    report = Report()
    (sample,) = pipeline.run(picture(), Order(3, name), report)
    assert sample.tokens == TOKENS[name] and sample.resolution == TYPES[name].resolution
    assert len(sample.coords) == 4096 * sample.tokens == len(sample.attributes)
    vertices, faces = sample.mesh.vertices.numpy(), sample.mesh.faces.numpy()
    assert (edge_uses(faces) == 2).all()  # closed: winding is the asset pipeline's affair
    used = vertices[faces.reshape(-1)]
    low, high = torch.tensor([-4, -2, -2]) / 64, torch.zeros(3)
    margin = 1.6 / sample.resolution
    assert torch.allclose(torch.from_numpy(used.min(0)), low, atol=margin)
    assert torch.allclose(torch.from_numpy(used.max(0)), high, atol=margin)
    assert sample.attributes[:, 5].min() > 0.99 and sample.attributes[:, :3].std() > 0.05
    finer = ["upsample", "finer_shape"] if "cascade" in name else []
    steps = ["condition", "structure", "shape", *finer, "texture", *DECODING, "mesh"]
    assert list(report.seconds) == steps


def test_same_seed_same_numbers(pipeline):
    one, again, other = (pipeline.sample(picture(), Order(seed, "512")) for seed in (5, 5, 6))
    for field in ("structure", "texture"):
        assert torch.equal(getattr(one, field), getattr(again, field))
    assert torch.equal(one.shape.feats, again.shape.feats)
    assert not torch.equal(one.shape.feats, other.shape.feats)
    changed = pipeline.sample(picture((20, 250, 20)), Order(5, "512"))
    assert not torch.equal(one.texture, changed.texture)


def test_several_samples(pipeline):
    """Each has its own voxels and latent, and what is made of one does not see the other."""
    two = pipeline.run(picture(), Order(5, "512", num_samples=2))
    assert len(two) == 2
    assert all(len(sample.coords) == 4096 * sample.tokens for sample in two)
    assert not torch.equal(two[0].attributes, two[1].attributes)


def test_a_cascade_settles_for_less(pipeline):
    report = Report()
    order = Order(3, "1536_cascade", most_tokens=50)
    (sample,) = pipeline.run(picture(), order, report)
    assert sample.resolution == 1280 and sample.tokens == 45
    assert "made with 1280" in report.notes[0]


@pytest.mark.parametrize("kind, most", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_halves_come_near(folders, pipeline, kind, most):
    """The torso in half precision, as devices that have it compute it."""
    exact = pipeline.sample(picture(), Order(1, "512"))
    got = reopen(folders, "cpu", host_type=kind).sample(picture(), Order(1, "512"))
    for name in ("structure", "texture"):
        part, wanted = getattr(got, name), getattr(exact, name)
        assert part.dtype == torch.float32
        assert 0 < (part - wanted).norm() / wanted.norm() < most, name


@pytest.fixture(scope="module")
def in_halves(folders):
    """The object of seed 1, computed in the types that a GPU has."""
    return reopen(folders, FakeDevice(2**34)).run(picture(), Order(1, "512"))[0]


@pytest.mark.parametrize("vram, level", [(2.501, "stage"), (1e-6, "block")])
def test_low_memory_changes_nothing(folders, in_halves, vram, level):
    """Networks that come and go, whole or block by block, compute the same bytes."""
    device = FakeDevice(2**34)
    pipeline = reopen(folders, device, vram=vram)
    (got,) = pipeline.run(picture(), Order(1, "512"))
    assert pipeline.residency.metrics()["residency.level"] == level
    assert torch.equal(got.attributes, in_halves.attributes)
    assert torch.equal(got.mesh.vertices, in_halves.mesh.vertices)
    assert torch.equal(got.mesh.faces, in_halves.mesh.faces)
    pipeline.residency.release()
    assert device.held == 0


def test_what_must_be_exact_is_float32_on_a_device(folders):
    """Although the file stores all of a flow in bfloat16."""
    pipeline = reopen(folders, FakeDevice(2**34))
    flow = pipeline.networks["shape_flow_512"]
    with pipeline.residency.stage("shape_512"):
        kinds = {key: tensor.dtype for key, tensor in flow.named_parameters()}
    exact = {key for key, kind in kinds.items() if kind == torch.float32}
    assert exact == exact_keys(flow)
    assert all(kinds[key] == torch.bfloat16 for key in kinds.keys() - exact)


def test_what_cannot_be_asked(pipeline):
    with pytest.raises(OptionError, match="one of 512, 1024, 1024_cascade, 1536_cascade, got 'x'"):
        pipeline.run(picture(), Order(pipeline_type="x"))
    with pytest.raises(OptionError, match="at least one sample"):
        pipeline.run(picture(), Order(num_samples=0))
    with pytest.raises(ForegroundError):
        pipeline.run(Image.new("RGBA", (40, 40)))


@pytest.mark.parametrize(
    "network, key, value, name, message",
    [
        ("structure_decoder", "out_layer.2.bias", -1e4, "512", "stage structure .* no voxel"),
        ("structure_flow", "out_layer.bias", torch.nan, "512", "stage structure .* not finite"),
        ("shape_flow_512", "out_layer.bias", torch.inf, "512", "stage shape_512 .* not finite"),
        ("texture_flow_512", "out_layer.bias", torch.nan, "512", "stage texture_512 .* not fin"),
        ("shape_decoder", "blocks.2.0.to_subdiv.bias", -1e4, "1024_cascade", "upsample .* no vox"),
        ("shape_decoder", "output_layer.bias", torch.nan, "512", "stage decode_shape .* not fin"),
        ("shape_decoder", "output_layer.bias", -1e4, "512", "stage decode_shape .* no surface"),
        ("texture_decoder", "output_layer.bias", torch.nan, "512", "stage decode_texture .* fin"),
    ],
)
def test_a_network_that_fails(pipeline, network, key, value, name, message):
    """The stage and the seed are named, and the next request works."""
    module = pipeline.networks[network]
    pipeline.sample(picture(), Order(1, "512"))  # from here on its tensors are float32
    tensor = dict(module.named_parameters())[key]
    before = tensor.clone()
    tensor.data.fill_(value)
    try:
        with pytest.raises(GenerationError, match=message) as failure:
            pipeline.run(picture(), Order(9, name))
    finally:
        tensor.data.copy_(before)
    assert "with seed 9:" in str(failure.value)
    assert pipeline.sample(picture(), Order(9, "512"))


def test_too_many_tokens(pipeline, monkeypatch):
    monkeypatch.setattr("trellis2_backend.pipeline.IMPOSSIBLE_TOKENS", 15)
    with pytest.raises(GenerationError, match="stage structure .* 16 voxels are occupied, 15 may"):
        pipeline.run(picture(), Order(9, "1024"))
    with pytest.raises(GenerationError, match="stage upsample .* 16 voxels are occupied, 15 may"):
        pipeline.run(picture(), Order(9, "1024_cascade"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "Other"}, "of Other; known here is Trellis2ImageTo3DPipeline"),
        (
            {"shape_slat_normalization": {"mean": [0.0], "std": [1.0]}},
            "shape_flow_512 gives 8, sha",
        ),
        ({"tex_slat_normalization": None}, "must hold the samplers and the latents' norm"),
        ({"shape_slat_sampler": {"name": "DDIM", "params": {}}}, "must be FlowEuler.*, got DDIM"),
        ({"default_pipeline_type": "2048"}, "default_pipeline_type is '2048'"),
        ({"tex_slat_flow_model_512": "ckpts/shape_flow_512"}, "both latents gives 16, texture_f"),
        ({"shape_slat_flow_model_1024": None}, "names no shape_slat_flow_model_1024"),
        ({"tex_slat_decoder": "ckpts/tex_flow_512"}, "class 'SLatFlowModel'; known here are Spar"),
        ({"tex_slat_decoder": "ckpts/missing"}, "missing.json is missing"),
    ],
)
def test_a_checkpoint_that_does_not_fit(folders, tmp_path, change, message):
    folder = tmp_path / "trellis2"
    shutil.copytree(folders[0], folder, copy_function=lambda a, b: (folder / b).symlink_to(a))
    (folder / "pipeline.json").unlink()
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
        Trellis2Pipeline.open(folder, folders[1], device="cpu")


def test_the_structure_decoder_is_borrowed(folders, tmp_path, monkeypatch):
    """As the official pipeline.json does: it lies in TRELLIS's repository."""
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "weights"))
    folder = write_trellis2(tmp_path / "trellis2", borrowed=tmp_path / "weights")
    assert not (folder / "ckpts/ss_dec.json").exists()
    got = Trellis2Pipeline.open(folder, folders[1], "cpu").sample(picture(), Order(2, "512"))
    assert len(got.shape.voxels) == TOKENS["512"]
    shutil.rmtree(tmp_path / "weights")
    with pytest.raises(WeightsError, match="ss_dec.json of microsoft/TRELLIS-image-large is need"):
        Trellis2Pipeline.open(folder, folders[1], "cpu")


def test_a_shape_is_painted(folders):
    """Every voxel that was given has its material, in the order given."""
    checkpoint, dino = folders
    pipeline = PaintingPipeline.open(checkpoint, checkpoint, dino, "cpu")
    grid = made_grid(40)
    report = Report()
    attributes = pipeline.paint(grid, picture(), seed=4, report=report)
    assert attributes.shape == (len(grid.coords), 6) and attributes[:, :3].std() > 0.05
    assert list(report.seconds) == ["condition", "encode_shape", "texture", "decode_texture"]
    again = pipeline.paint(grid, picture(), seed=4)
    other = pipeline.paint(grid, picture(), seed=5)
    assert torch.equal(attributes, again) and not torch.equal(attributes, other)
    order = torch.randperm(len(grid.coords), generator=torch.Generator().manual_seed(0))
    shuffled = DualGrid(
        grid.coords[order], grid.offsets[order], grid.intersected[order], grid.resolution
    )
    moved = pipeline.paint(shuffled, picture(), seed=4)
    torch.testing.assert_close(moved, attributes[order], rtol=1e-4, atol=1e-4)


def made_grid(side):
    """The voxels of a box's surface, on a grid of 1024."""
    cells = torch.cartesian_prod(*3 * [torch.arange(side)])
    cells = cells[((cells == 0) | (cells == side - 1)).any(1)].int() + 480
    offsets = torch.full((len(cells), 3), 0.5)
    return DualGrid(cells, offsets, torch.ones(len(cells), 3, dtype=torch.bool), 1024)
