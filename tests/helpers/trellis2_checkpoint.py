"""A tiny checkpoint of TRELLIS.2 in the official layout, whose networks make a closed box.

The layers have seeded weights, which contribute a little of everything; on top of them a few
weights are set so that the result is an object and not noise: the structure's decoder shows a bar
of two tokens near the middle, the shape's decoder subdivides every voxel and flags the edges at the
border of what it sees. 1 MB, stored in the types the official files have.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from helpers.golden import seed_weights
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DINOv3ViTConfig

from onelook.nn.inner_type import half_keys
from trellis2_backend.conditioning import build_dino
from trellis2_backend.networks import NETWORKS, TORSO
from trellis2_backend.painting import ENCODER_STEM

COND, LATENT = 32, 8
TOKENS = {"512": 2, "1024": 16, "1024_cascade": 16, "1536_cascade": 54}  # of the bar, 2 x 1 x 1
BORROWED = "microsoft/TRELLIS-image-large"

_FLOW = {
    "resolution": 32,
    "in_channels": LATENT,
    "out_channels": LATENT,
    "model_channels": 48,
    "cond_channels": COND,
    "num_blocks": 2,
    "num_heads": 2,
    "mlp_ratio": 5.3334,
    "pe_mode": "rope",
    "share_mod": True,
    "initialization": "scaled",
    "qk_rms_norm": True,
    "qk_rms_norm_cross": True,
    "dtype": "bfloat16",
}
_TEXTURE_FLOW = {**_FLOW, "in_channels": 2 * LATENT}
_UNET = {
    "latent_channels": LATENT,
    "block_type": ["SparseConvNeXtBlock3d"] * 5,
    "block_args": [{}] * 5,
    "use_fp16": True,
}
_DECODER = {
    **_UNET,
    "model_channels": [32, 16, 16, 8, 8],
    "num_blocks": [1, 1, 0, 0, 0],
    "up_block_type": ["SparseResBlockC2S3d"] * 4,
}
# role -> (stem, class, args)
MODELS = {
    "sparse_structure_flow_model": (
        "ckpts/ss_flow",
        "SparseStructureFlowModel",
        {**_FLOW, "resolution": 2},
    ),
    "sparse_structure_decoder": (
        "ckpts/ss_dec",
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": LATENT,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": [16, 16, 8, 8, 4, 2],
            "use_fp16": True,
        },
    ),
    "shape_slat_flow_model_512": ("ckpts/shape_flow_512", "SLatFlowModel", _FLOW),
    "shape_slat_flow_model_1024": ("ckpts/shape_flow_1024", "SLatFlowModel", _FLOW),
    "shape_slat_decoder": (
        "ckpts/shape_dec",
        "FlexiDualGridVaeDecoder",
        {**_DECODER, "resolution": 256},
    ),
    "tex_slat_flow_model_512": ("ckpts/tex_flow_512", "SLatFlowModel", _TEXTURE_FLOW),
    "tex_slat_flow_model_1024": ("ckpts/tex_flow_1024", "SLatFlowModel", _TEXTURE_FLOW),
    "tex_slat_decoder": (
        "ckpts/tex_dec",
        "SparseUnetVaeDecoder",
        {**_DECODER, "out_channels": 6, "pred_subdiv": False},
    ),
}
_SHAPE_ENCODER = {
    **_UNET,
    "model_channels": [8, 8, 16, 16, 32],
    "num_blocks": [0, 0, 0, 1, 1],
    "down_block_type": ["SparseResBlockS2C3d"] * 4,
}


def _sampler(strength: float, rescale: float, high: float, rescale_t: float) -> dict:
    return {
        "name": "FlowEulerGuidanceIntervalSampler",
        "args": {"sigma_min": 1e-5},
        "params": {
            "steps": 2,
            "guidance_strength": strength,
            "guidance_rescale": rescale,
            "guidance_interval": [0.6, high],
            "rescale_t": rescale_t,
        },
    }


_PIPELINE = {
    "sparse_structure_sampler": _sampler(7.5, 0.7, 1.0, 5.0),
    "shape_slat_sampler": _sampler(7.5, 0.5, 1.0, 3.0),
    "tex_slat_sampler": _sampler(1.0, 0.0, 0.9, 3.0),
    "shape_slat_normalization": {"mean": [0.1] * LATENT, "std": [2.0] * LATENT},
    "tex_slat_normalization": {"mean": [-0.2] * LATENT, "std": [3.0] * LATENT},
    "image_cond_model": {"name": "DinoV3FeatureExtractor", "args": {}},
    "rembg_model": {"name": "BiRefNet", "args": {}},
    "default_pipeline_type": "1024_cascade",
}


def write_trellis2(folder: Path, seed: int = 1, borrowed: Path | None = None) -> Path:
    """Write the checkpoint, with the shape's encoder; returns `folder`.

    borrowed: the weights folder in which the structure's decoder is put under another repository.
    """
    models = {}
    for role, (stem, kind, args) in MODELS.items():
        place = folder / stem
        models[role] = stem
        if borrowed and role == "sparse_structure_decoder":
            models[role], place = f"{BORROWED}/{stem}", borrowed / BORROWED / stem
        _write(place, kind, args, seed)
    _write(folder / ENCODER_STEM, "FlexiDualGridVaeEncoder", _SHAPE_ENCODER, seed)
    pipeline = {"name": "Trellis2ImageTo3DPipeline", "args": {"models": models, **_PIPELINE}}
    (folder / "pipeline.json").write_text(json.dumps(pipeline, indent=4))
    (folder / "texturing_pipeline.json").write_text("{}")
    return folder


def write_dino3(folder: Path, seed: int = 1, width: int = COND) -> Path:
    """Write a tiny DINOv3 as the hub has it; returns `folder`."""
    folder.mkdir(parents=True)
    config = DINOv3ViTConfig(
        hidden_size=width,
        intermediate_size=2 * COND,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_register_tokens=4,
        patch_size=16,
        key_bias=False,
    )
    encoder = seed_weights(build_dino(config), seed)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    published = {
        key.removeprefix("model."): value.contiguous()
        for key, value in encoder.state_dict().items()
    }
    save_file(published, folder / "model.safetensors")
    return folder


def _write(stem: Path, kind: str, args: dict, seed: int) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    network = seed_weights(NETWORKS[kind](args), seed)
    with torch.no_grad():
        _SHAPERS.get(kind, lambda network: None)(network)
    stem.with_name(stem.name + ".json").write_text(json.dumps({"name": kind, "args": args}))
    save_file(stored_tensors(network, kind), stem.with_name(stem.name + ".safetensors"))


def stored_tensors(network: nn.Module, kind: str) -> dict[str, Tensor]:
    """The state dict in the types of the official files."""
    halves = half_keys(network, TORSO) if kind == "SparseStructureDecoder" else None
    half = torch.bfloat16 if "Flow" in kind else torch.float16
    return {
        key: (tensor.to(half) if halves is None or key in halves else tensor).contiguous()
        for key, tensor in network.state_dict().items()
    }


def _show_a_bar(decoder: nn.Module) -> None:
    """Cells 28..31 x 30..31 x 30..31 of 64^3. Half of the channels carry a value that is 1 in the
    bar and negative elsewhere, the others its opposite."""
    decoder.input_layer.weight.mul_(0.01)
    decoder.input_layer.bias.copy_(_signs(len(decoder.input_layer.bias)))
    for module in decoder.modules():
        if hasattr(module, "conv2"):
            module.conv2.weight.mul_(0.02)
            module.conv2.bias.mul_(0.02)
    doublings = [block.conv for block in decoder.blocks if hasattr(block, "conv")]
    bits = (torch.arange(8)[:, None] >> torch.tensor([2, 1, 0])) & 1  # (8, 3): x, y, z of a child
    for number, conv in enumerate(doublings):
        inputs = _signs(conv.in_channels)
        outputs = _signs(conv.out_channels // 8).repeat_interleave(8)
        carry = outputs[:, None] * inputs / len(inputs)
        wanted = torch.tensor([number < 3, number < 4, number < 4]).long()  # bits that must be 1
        offset = -2.0 * (wanted * (1 - bits)).sum(1)
        conv.weight.mul_(0.01)
        if number == 0:  # only the cell of 2^3 that has neighbours above on all axes
            for x, y, z in [(2, 1, 1), (1, 2, 1), (1, 1, 2)]:
                conv.weight[:, :, x, y, z] += 2 * carry
            offset = offset - 5
        else:
            conv.weight[:, :, 1, 1, 1] += carry
        conv.bias.copy_(outputs * offset.repeat(len(outputs) // 8))
    norm, _, conv = decoder.out_layer
    norm.weight.fill_(1.0)
    norm.bias.zero_()
    conv.weight.mul_(0.02)
    conv.weight[0, :, 1, 1, 1] += _signs(conv.in_channels)


def _signs(count: int) -> Tensor:
    """1 for the first half, -1 for the second."""
    return torch.where(torch.arange(count) < count // 2, 1.0, -1.0)


def _flag_the_border(decoder: nn.Module) -> None:
    """Every voxel has all its children, and an edge is crossed where along its axis a neighbour of
    the voxel is missing: on a box that makes a closed box."""
    for stage in decoder.blocks:
        for block in stage:
            if hasattr(block, "to_subdiv"):
                block.to_subdiv.weight.mul_(0.001)
                block.to_subdiv.bias.fill_(1.0)
                last = block
    channels = len(last.conv2.bias)
    is_even = (torch.arange(channels) % 2 == 0).float()
    last.conv1.weight.mul_(0.1)
    last.conv1.bias.copy_((2 * is_even - 1).repeat(8))
    last.conv2.weight.mul_(0.02)
    last.conv2.bias.zero_()
    present = 0.731 * channels / 2  # what a neighbour gives the even channels after the norm
    for axis in range(3):
        for side in (0, 2):
            tap = [1, 1, 1]
            tap[axis] = side
            last.conv2.weight[axis, *tap] -= is_even / present
        last.conv2.bias[axis] = 2.0
    last.conv2.bias[-1] = 4.0
    decoder.output_layer.weight.mul_(0.05)
    decoder.output_layer.bias.zero_()
    decoder.output_layer.weight[3:6, :3] += torch.eye(3)
    decoder.output_layer.bias[3:6] = 0.15


def _be_opaque(decoder: nn.Module) -> None:
    weight, bias = decoder.output_layer.weight, decoder.output_layer.bias
    weight.mul_(0.3)
    weight[5].mul_(0.01)
    bias.copy_(torch.tensor([0.4, -0.1, -0.3, -0.8, 0.1, 1.2]))


_SHAPERS = {
    "SparseStructureDecoder": _show_a_bar,
    "FlexiDualGridVaeDecoder": _flag_the_border,
    "SparseUnetVaeDecoder": _be_opaque,
}

if __name__ == "__main__":
    write_trellis2(Path(sys.argv[1]) / "trellis2")
    write_dino3(Path(sys.argv[1]) / "dino3")
