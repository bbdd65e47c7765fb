"""A tiny checkpoint of TRELLIS in the official layout, whose networks make a cube.

The layers have seeded weights, which contribute a little of everything; on top of them a few
weights are set so that the result is an object and not noise: the structure's flow leads to a solid
body in the middle of the space, its decoder shows the latent's sign, the mesh decoder finds every
voxel inside. With so few cells the body is a cube of half the space. 7 MB, stored in the types the
official files have.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from helpers.golden import seed_weights
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, Dinov2WithRegistersConfig

from onelook.nn.norms import layer_norm
from trellis_backend.conditioning import build_dino
from trellis_backend.networks import NETWORKS, half_keys

COND, LATENT, STRUCTURE, VOXELS = 32, 8, 4, 16  # widths; resolutions of the two grids
RADIUS = 0.40  # of the body: it holds the middle 2 x 2 x 2 cells of the structure's grid

_FLOW = {
    "in_channels": LATENT,
    "out_channels": LATENT,
    "model_channels": 48,
    "cond_channels": COND,
    "num_blocks": 3,
    "num_heads": 4,
    "mlp_ratio": 4,
    "pe_mode": "ape",
    "qk_rms_norm": True,
    "use_fp16": True,
}
_DECODER = {
    "resolution": VOXELS,
    "latent_channels": LATENT,
    "num_blocks": 2,
    "num_heads": 4,
    "mlp_ratio": 4,
    "attn_mode": "swin",
    "window_size": 8,
    "use_fp16": True,
}
_GAUSSIANS = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 8,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 9e-4,
    "scaling_bias": 4e-3,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}
# role -> (stem, class, args)
MODELS = {
    "sparse_structure_flow_model": (
        "ckpts/ss_flow",
        "SparseStructureFlowModel",
        {**_FLOW, "resolution": STRUCTURE, "patch_size": 1},
    ),
    "sparse_structure_decoder": (
        "ckpts/ss_dec",
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": LATENT,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": [32, 16, 8],
            "use_fp16": True,
        },
    ),
    "slat_flow_model": (
        "ckpts/slat_flow",
        "SLatFlowModel",
        {
            **_FLOW,
            "resolution": VOXELS,
            "patch_size": 2,
            "num_io_res_blocks": 2,
            "io_block_channels": [24],
        },
    ),
    "slat_decoder_mesh": (
        "ckpts/slat_dec_mesh",
        "SLatMeshDecoder",
        {**_DECODER, "model_channels": 256, "representation_config": {"use_color": True}},
    ),
    "slat_decoder_gs": (
        "ckpts/slat_dec_gs",
        "SLatGaussianDecoder",
        {**_DECODER, "model_channels": 48, "representation_config": _GAUSSIANS},
    ),
    "slat_decoder_rf": (
        "ckpts/slat_dec_rf",
        "SLatRadianceFieldDecoder",
        {**_DECODER, "model_channels": 48, "representation_config": {"rank": 4, "dim": 8}},
    ),
}
_SAMPLER = {
    "name": "FlowEulerGuidanceIntervalSampler",
    "args": {"sigma_min": 1e-5},
    "params": {"steps": 3, "cfg_strength": 5.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
}


def write_trellis(folder: Path, seed: int = 1, name: str = "TrellisImageTo3DPipeline") -> Path:
    """Write the checkpoint; returns `folder`, which then has pipeline.json and ckpts/."""
    (folder / "ckpts").mkdir(parents=True)
    for stem, kind, args in MODELS.values():
        network = seed_weights(NETWORKS[kind](args), seed)
        with torch.no_grad():
            _SHAPERS.get(kind, lambda network: None)(network)
        (folder / f"{stem}.json").write_text(json.dumps({"name": kind, "args": args}))
        save_file(stored_tensors(network), folder / f"{stem}.safetensors")
    pipeline = {
        "name": name,
        "args": {
            "models": {role: stem for role, (stem, _, _) in MODELS.items()},
            "sparse_structure_sampler": _SAMPLER,
            "slat_sampler": _SAMPLER,
            "slat_normalization": {"mean": [0.1] * LATENT, "std": [2.0] * LATENT},
            "image_cond_model": "dinov2_vitl14_reg",
        },
    }
    (folder / "pipeline.json").write_text(json.dumps(pipeline, indent=4))
    return folder


def write_dino(folder: Path, seed: int = 1) -> Path:
    """Write a tiny DINOv2 with registers as the hub has it; returns `folder`."""
    folder.mkdir(parents=True)
    config = Dinov2WithRegistersConfig(
        hidden_size=COND,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=518,
        patch_size=14,
        num_register_tokens=4,
    )
    encoder = seed_weights(build_dino(config), seed)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(
        {key: value.contiguous() for key, value in encoder.state_dict().items()},
        folder / "model.safetensors",
    )
    return folder


def write_clip(folder: Path, seed: int = 1) -> Path:
    """Write a tiny CLIP as the hub has it, both halves, spelling with single letters."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=COND,
        intermediate_size=4 * COND,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    (folder / "config.json").write_text(json.dumps({"text_config": config.to_dict()}))
    text = seed_weights(CLIPTextModel(config), seed).state_dict()
    tensors = {f"text_model.{key}": value.contiguous() for key, value in text.items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["vision_model.post_layernorm.weight"] = torch.ones(4)
    save_file(tensors | {"logit_scale": torch.ones(1)}, folder / "model.safetensors")
    return folder


def stored_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The state dict in the types of the official files."""
    halves = half_keys(network)
    return {
        key: (tensor.half() if key in halves else tensor).contiguous()
        for key, tensor in network.state_dict().items()
    }


def _lead_to_a_body(flow: nn.Module) -> None:
    """The velocity is the same at all times: from the place alone."""
    for block in flow.blocks:
        block.adaLN_modulation[1].weight.zero_()
        block.adaLN_modulation[1].bias.zero_()
        block.cross_attn.to_out.weight.mul_(0.002)
        block.cross_attn.to_out.bias.zero_()
    flow.input_layer.weight.mul_(0.002)
    flow.input_layer.bias.zero_()
    cells = (torch.arange(STRUCTURE) + 0.5) / STRUCTURE - 0.5
    distance = torch.cartesian_prod(cells, cells, cells).norm(dim=1)
    places = layer_norm(flow.pos_emb, 1e-5)
    places = torch.cat([places, torch.ones(len(places), 1)], dim=1)
    # A sum over the axes, as the places can give it; negative because time runs from 1 to 0.
    wanted = -40 * (RADIUS**2 - distance.square())[:, None].expand(-1, LATENT)
    solution = torch.linalg.lstsq(places, wanted, driver="gelsd").solution
    flow.out_layer.weight.copy_(solution[:-1].T)
    flow.out_layer.bias.copy_(solution[-1])


def _show_the_sign(decoder: nn.Module) -> None:
    """Half of the channels carry the latent's mean, the others its opposite; blurred on the way."""

    def carry(conv: nn.Conv3d, tap: float = 1.0, is_first: bool = False) -> None:
        conv.weight.mul_(0.01)
        conv.bias.zero_()
        rows, columns = conv.weight.shape[:2]
        sign = _halves(rows)[:, None] * (1 if is_first else _halves(columns))
        mean = (sign * tap / columns)[:, :, None, None, None]
        conv.weight.add_(0.25 * mean / 27)  # a little blurred
        conv.weight[:, :, 1:2, 1:2, 1:2].add_(0.75 * mean)

    carry(decoder.input_layer, is_first=True)
    for module in decoder.modules():
        if hasattr(module, "conv2"):
            module.conv2.weight.mul_(0.02)
            module.conv2.bias.zero_()
    for block in decoder.blocks:
        if hasattr(block, "conv"):
            carry(block.conv)
    norm, _, conv = decoder.out_layer
    norm.weight.fill_(1.0)
    norm.bias.zero_()
    carry(conv, 8.0)


def _halves(count: int) -> Tensor:
    """1 for the first half, -1 for the second; 1 alone is 1."""
    return torch.where(torch.arange(count) < (count + 1) // 2, 1.0, -1.0)


def _find_all_inside(decoder: nn.Module) -> None:
    decoder.out_layer.weight.mul_(0.02)
    decoder.out_layer.bias.mul_(0.02)
    decoder.out_layer.bias[:8] -= 0.4  # the field at the corners


def _be_opaque(decoder: nn.Module) -> None:
    count = _GAUSSIANS["num_gaussians"]
    decoder.out_layer.weight.mul_(0.2)
    decoder.out_layer.bias[-count:] += 4.0
    colors = decoder.out_layer.bias[3 * count : 6 * count].view(count, 3)
    colors += torch.tensor([1.2, 0.3, -0.8])
    decoder.out_layer.bias[6 * count : 9 * count] += 2.0  # wider than the default


_SHAPERS = {
    "SparseStructureFlowModel": _lead_to_a_body,
    "SparseStructureDecoder": _show_the_sign,
    "SLatMeshDecoder": _find_all_inside,
    "SLatGaussianDecoder": _be_opaque,
}

if __name__ == "__main__":
    write_trellis(Path(sys.argv[1]) / "trellis")
    write_dino(Path(sys.argv[1]) / "dino")
