"""A tiny checkpoint set of Zero123++ and InstantMesh in the official layouts, whose mesh is known.

The networks of Zero123++ have seeded weights: their six views are noise, but of full size. So have
those of the reconstruction, but their part is small; on top of them some weights are set so that
the triplanes hold an ellipsoid whose half-axes and colours tell the three axes and their signs
apart, whatever the views. 2 MB; the UNet and the reconstruction are pickles, as the official ones.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import yaml
from helpers.golden import seed_weights
from safetensors.torch import save_file
from torch import nn

from instantmesh_backend.config import MeshConfig, NerfConfig, ReconstructionConfig
from instantmesh_backend.opening import build_text, build_unet, build_vae, build_vision
from instantmesh_backend.reconstruction import PREFIX, build_reconstruction
from onelook.nn.vit import ViTConfig

# Half-axes of the ellipsoid along x (depth), y (width) and z (height), in InstantMesh's own space.
HALF_AXES = (0.3, 0.5, 0.7)
WIDTH, TOKENS = 16, 77
UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.20.2",
    "dropout": 0.0,  # these two are in the official file; newer diffusers know them, older do not
    "reverse_transformer_layers_per_block": None,
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "cross_attention_dim": WIDTH,
    "attention_head_dim": [1, 1, 2],
    "use_linear_projection": True,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [4, 4, 4, 8, 8],  # one more than the official: attention is costly
    "down_block_types": ["DownEncoderBlock2D"] * 5,
    "up_block_types": ["UpDecoderBlock2D"] * 5,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "projection_dim": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "hidden_act": "gelu",
}
TEXT = {
    "vocab_size": 190,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": TOKENS,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "bos_token_id": 188,
    "eos_token_id": 189,
}
SCHEDULER = {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
    "timestep_spacing": "linspace",
    "trained_betas": None,
    "clip_sample": False,
}
PIXELS_VAE = {
    "size": {"shortest_edge": 128},
    "crop_size": {"height": 128, "width": 128},
    "resample": 2,
    "image_mean": 0.5,
    "image_std": 0.8,
}
PIXELS_CLIP = {
    "size": {"shortest_edge": 28},
    "crop_size": {"height": 28, "width": 28},
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_VIT = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
_NUMBERS = {
    "transformer_layers": 2,
    "transformer_dim": 32,
    "transformer_heads": 2,
    "triplane_dim": 8,
    "triplane_low_res": 16,
    "triplane_high_res": 32,
    "rendering_samples_per_ray": 16,
    "encoder_feat_dim": 32,
    "vit": _VIT,
}
MESH = MeshConfig(**_NUMBERS, grid_res=32, grid_scale=2.1)
NERF = NerfConfig(**_NUMBERS)


def write_zero123plus(folder: Path, seed: int = 1) -> Path:
    """Write the diffusers folder, without weights for its UNet; returns `folder`."""
    for name, content in {
        "model_index.json": {
            "_class_name": ["pipeline", "Zero123PlusPipeline"],
            "ramping_coefficients": [round(0.01 * n, 2) for n in range(TOKENS)],
        },
        "unet/config.json": UNET,
        "vae/config.json": VAE,
        "vision_encoder/config.json": VISION,
        "text_encoder/config.json": TEXT,
        "scheduler/scheduler_config.json": SCHEDULER,
        "feature_extractor_vae/preprocessor_config.json": PIXELS_VAE,
        "feature_extractor_clip/preprocessor_config.json": PIXELS_CLIP,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    _save(seed_weights(build_vae(VAE), seed), folder / "vae/diffusion_pytorch_model.safetensors")
    vision = seed_weights(build_vision(VISION), seed)
    _save(vision, folder / "vision_encoder/model.safetensors")
    text = seed_weights(build_text(TEXT), seed, prefix="text_model.")
    _save(text, folder / "text_encoder/model.safetensors", "text_model.")
    write_tokenizer(folder / "tokenizer")
    return folder


def write_unet(path: Path, seed: int = 1) -> Path:
    """Write InstantMesh's UNet, a bare state dict; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(seed_weights(build_unet(UNET), seed).state_dict(), path)
    return path


def write_reconstruction(path: Path, config: ReconstructionConfig = MESH, seed: int = 1) -> Path:
    """Write a Lightning checkpoint with what the official ones hold besides; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    network = seed_weights(build_reconstruction(config), seed)
    with torch.no_grad():
        _hold_an_ellipsoid(network)
    tensors = {PREFIX + key: value for key, value in network.state_dict().items()}
    tensors[PREFIX + "source_camera"] = torch.zeros(1, 16)
    tensors["lpips.net.weight"] = torch.zeros(2)
    torch.save({"epoch": 3, "state_dict": tensors}, path)
    return path


def write_config(
    path: Path, unet: Path | str, model: Path | str, target: str = "src.models.lrm_mesh.InstantMesh"
) -> Path:
    """Write a yaml file in the original's form that describes the tiny model; returns `path`."""
    params = asdict(MESH if target.endswith("InstantMesh") else NERF)
    content = {
        "model_config": {"target": target, "params": params},
        "infer_config": {
            "unet_path": str(unet),
            "model_path": str(model),
            "texture_resolution": 1024,
            "render_resolution": 512,
        },
    }
    path.write_text(yaml.safe_dump(content))
    return path


def write_all(root: Path) -> tuple[Path, Path]:
    """Both repositories under `root`: (zero123plus, instantmesh), the latter with its yaml."""
    own = root / "instantmesh"
    unet = write_unet(own / "diffusion_pytorch_model.bin")
    model = write_reconstruction(own / "instant_mesh_large.ckpt")
    write_config(own / "instant-mesh-large.yaml", unet.name, model.name)
    return write_zero123plus(root / "zero123plus"), own


def _save(network: nn.Module, path: Path, prefix: str = "") -> None:
    tensors = {prefix + key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, path)


def write_tokenizer(folder: Path) -> None:
    """Single letters; like the official one it pads with "!", which is number 0."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "!",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {**special, "model_max_length": TOKENS, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _hold_an_ellipsoid(network: nn.Module) -> None:
    """Channel 0 of the planes adds up to 3 - (x/a)^2 - (y/b)^2 - (z/c)^2; 1 and 2 hold coordinates.

    A token's first numbers are what its texels shall hold and the opposite, so that its mean is 0,
    and the last ones make up for its length: the last norm changes nothing then but the scale.
    """
    transformer, config = network.transformer, network.config
    for layer in transformer.layers:  # the views count for a little
        for part in (layer.cross_attn.out_proj, layer.self_attn.out_proj, layer.mlp[3]):
            part.weight.mul_(0.002)
        layer.mlp[3].bias.zero_()
    side, width = config.triplane_low_res, config.transformer_dim
    middles = (np.arange(side) + 0.5) / side * 2 - 1
    rows, columns = np.meshgrid(middles, middles, indexing="ij")
    curved = 1 / np.square(HALF_AXES)
    wanted = []
    for first, second in [(0, 1), (0, 2), (2, 1)]:  # along a plane's columns, along its rows
        squares = curved[first] * columns**2 + curved[second] * rows**2
        wanted.append(np.stack([(1 - squares / 2) / 16, columns / 4, rows / 4], axis=-1))
    wanted = np.stack(wanted).reshape(-1, 3)
    rest = np.sqrt(1 - np.square(wanted).sum(axis=1, keepdims=True))
    tokens = np.concatenate([wanted, -wanted, rest, -rest], axis=1)  # length sqrt(2), mean 0
    tokens = np.concatenate([tokens, np.zeros((len(tokens), width - 8))], axis=1)
    transformer.pos_embed.copy_(torch.from_numpy(tokens)[None])
    transformer.norm.weight.fill_((2 / width) ** 0.5)
    transformer.norm.bias.zero_()
    transformer.deconv.weight.mul_(0.001)
    transformer.deconv.bias.zero_()
    for channel in range(3):
        transformer.deconv.weight[channel, channel] += (16, 4, 4)[channel]
    read_planes(network.synthesizer.decoder, config.triplane_dim)


def read_planes(decoder: nn.Module, channels: int) -> None:
    """Let the heads find the surface where channel 0 of the three planes adds up to 2, the inside
    where it is more, and colours that grow with the coordinates in channels 1 and 2.

    channels: of a plane. In place; under `torch.no_grad()`.
    """
    curve = [0, channels, 2 * channels]
    # x is along the columns of the first plane, y along its rows, z along the second's rows.
    coordinates = [1, 2, channels + 2]
    if hasattr(decoder, "net_sdf"):
        _pass_through(decoder.net_sdf, {0: (curve, 1.0, 0.0)}, [(0, -1.0, 2.0)])
        _pass_through(*_of_colors(decoder.net_rgb, coordinates, first=0))
    else:  # a density of 10 where the sum is 2
        head, inputs, outputs = _of_colors(decoder.net, coordinates, first=1)
        inputs[9] = (curve, 1.0, 0.0)
        _pass_through(head, inputs, [(9, 100.0, 11.0 - 200.0), *outputs])


def _of_colors(head: nn.Sequential, coordinates: list[int], first: int):
    """Colours that grow with x, y and z: 1 + coordinate is above 0, so it passes a ReLU."""
    inputs = {unit: ([row], 1.0, 1.0) for unit, row in enumerate(coordinates)}
    return head, inputs, [(unit, 3.0, -3.0) for unit in range(3)]


def _pass_through(
    head: nn.Sequential,
    inputs: dict[int, tuple[list[int], float, float]],
    outputs: list[tuple[int, float, float]],
) -> None:
    """Let units carry sums of features through the head unchanged.

    inputs: hidden unit -> (features, factor, offset); outputs: one (unit, factor, offset) for each.
    """
    for layer in head:
        if isinstance(layer, nn.Linear):
            layer.weight.mul_(0.001)
            layer.bias.zero_()
    for unit, (features, factor, offset) in inputs.items():
        head[0].weight[unit] = 0
        head[0].weight[unit, features] = factor
        head[0].bias[unit] = offset
        for layer in (head[2], head[4]):
            layer.weight[unit] = 0
            layer.weight[unit, unit] = 1
    for row, (unit, factor, offset) in enumerate(outputs):
        head[6].weight[row] = 0
        head[6].weight[row, unit] = factor
        head[6].bias[row] = offset
