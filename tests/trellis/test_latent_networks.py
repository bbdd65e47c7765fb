"""The networks of the structured latent give what the original's give."""

import pytest
import torch
from helpers.parity import Parity

from onelook.nn.voxels import SparseTensor, Voxels
from trellis_backend.gaussian_decoder import hammersley
from trellis_backend.networks import NETWORKS


def build(case):
    return case.seed(NETWORKS[case.case.info["class"]](case.config))


def sparse(case):
    return SparseTensor(case["feats"], Voxels(case["coords"]))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["slat_flow_tiny", "slat_flow_tiny_3io"])
def test_flow_model(load_case, name):
    case = Parity(load_case(f"trellis/{name}"))
    model, x = build(case), sparse(case)
    seen = {
        f"after_{stage}{i}": record(block)
        for stage in ("input_blocks", "blocks", "out_blocks")
        for i, block in enumerate(getattr(model, stage))
    }
    seen["after_input_layer"] = record(model.input_layer)
    case.check("out", model(x, case["t"], case["cond"]))
    for key in case.case.arrays.keys() & seen.keys():
        case.check(key, seen[key][0])
    if "down_coords" in case.case.arrays:
        assert seen.keys() <= case.case.arrays.keys()
        case.check("down_coords", x.voxels.halving.coarse.coords)


@torch.inference_mode()
def test_encoder(load_case):
    case = Parity(load_case("trellis/slat_encoder_tiny"))
    mean, logvar = build(case)(sparse(case))
    case.check("mean", mean)
    case.check("logvar", logvar)


@torch.inference_mode()
def test_gaussian_decoder(load_case):
    case = Parity(load_case("trellis/slat_gaussian_decoder_tiny"))
    model, x = build(case), sparse(case)
    case.check("offset_perturbation", model.offset_perturbation)
    case.check("head", model.features(x))
    items = model(x)
    assert len(items) == 2
    for i, item in enumerate(items):
        case.check(f"item{i}_xyz", item.positions + 0.5)
        case.check(f"item{i}_features_dc", item.features[:, None])
        case.check(f"item{i}get_xyz", item.positions)
        case.check(f"item{i}get_scaling", item.scales)
        case.check(f"item{i}get_rotation", torch.nn.functional.normalize(item.rotations))
        case.check(f"item{i}get_opacity", item.opacities[:, None])


def test_hammersley_points(load_case):
    case = Parity(load_case("trellis/hammersley"))
    count, size = case.config["num_gaussians"], case.config["voxel_size"]
    points = hammersley(count)
    case.check("h3_32", points)
    case.check("offset_perturbation", torch.atanh((2 * points - 1) / size))


@torch.inference_mode()
def test_radiance_field_decoder(load_case):
    case = Parity(load_case("trellis/slat_rf_decoder_tiny"))
    items = build(case)(sparse(case))
    assert len(items) == 2
    for i, item in enumerate(items):
        for name in ("position", "depth", "trivec", "density", "features_dc"):
            case.check(f"item{i}_{name}", getattr(item, name))


@torch.inference_mode()
def test_mesh_decoder(load_case):
    case = Parity(load_case("trellis/slat_mesh_decoder_tiny"))
    model, x = build(case), sparse(case)
    case.check("torso", model.torso(x))
    first = record(model.upsample[0])
    out = model(x)
    case.check("up0_first64", first[0][:, :64])
    case.check("out_coords", out.voxels.coords)
    case.check("out_feats", out.feats)


def record(module):
    """The rows the module gives from now on, of the first branch where there are several."""
    seen = []

    def keep(_module, _inputs, out):
        out = out[0] if isinstance(out, list) else out
        seen.append(out.feats if isinstance(out, SparseTensor) else out)

    module.register_forward_hook(keep)
    return seen
