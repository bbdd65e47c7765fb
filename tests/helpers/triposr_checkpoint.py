"""A tiny checkpoint of TripoSR in the official layout, whose network makes a ball.

The layers have seeded weights, which contribute a little of everything; on top of them the learned
tokens carry the squares of the places' coordinates, the upsampler and the decoder pass them on, and
the density is high where their sum is small. 1 MB.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import yaml
from helpers.golden import seed_weights
from torch import nn

from onelook.nn.vit import ViTConfig
from triposr_backend.config import CLASSES, TripoSRConfig
from triposr_backend.scene_model import Decoder, TripoSR

RADIUS = 0.5  # of the ball, in world units
PLANE, CHANNELS, FEATURES, HIDDEN = 16, 64, 8, 32
_TINY = 1e-3  # what the seeded weights keep of their size where the ball is made
_STEEPNESS = 40.0

CONFIG = {
    "cond_image_size": 64,
    **{f"{part}_cls": name for part, name in CLASSES.items()},
    "image_tokenizer": {"pretrained_model_name_or_path": "dino"},
    "tokenizer": {"plane_size": PLANE, "num_channels": CHANNELS},
    "backbone": {
        "in_channels": CHANNELS,
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "num_layers": 2,
        "cross_attention_dim": 48,
    },
    "post_processor": {"in_channels": CHANNELS, "out_channels": FEATURES},
    "decoder": {
        "in_channels": 3 * FEATURES,
        "n_neurons": HIDDEN,
        "n_hidden_layers": 2,
        "activation": "silu",
    },
    "renderer": {
        "radius": 0.87,
        "feature_reduction": "concat",
        "density_activation": "exp",
        "density_bias": -1.0,
        "num_samples_per_ray": 32,
    },
}
ENCODER = {
    "model_type": "vit",
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
    "layer_norm_eps": 1e-12,
}


def write_triposr(folder: Path, seed: int = 1) -> Path:
    """Write the checkpoint; returns `folder`, which then has config.yaml, model.ckpt and dino/."""
    (folder / "dino").mkdir(parents=True)
    (folder / "dino" / "config.json").write_text(json.dumps(ENCODER))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.save(dict(made_triposr(seed).state_dict()), folder / "model.ckpt")
    return folder


def made_triposr(seed: int = 1) -> TripoSR:
    """The network, with its weights."""
    numbers = {key: value for key, value in ENCODER.items() if key != "model_type"}
    config = TripoSRConfig.of_yaml(CONFIG, ViTConfig(**numbers))
    model = seed_weights(TripoSR(config), seed).eval()
    with torch.no_grad():
        _make_ball(model, config.renderer.radius)
    return model


def _make_ball(model: TripoSR, radius: float) -> None:
    model.backbone.proj_out.weight.mul_(_TINY)
    model.backbone.proj_out.bias.mul_(_TINY)
    places = ((torch.arange(PLANE) + 0.5) / PLANE * 2 - 1) * radius
    squares = places.square()
    tokens = model.tokenizer.embeddings
    tokens.mul_(0.1)
    tokens[:, 0] = 0
    tokens[0, 0] = squares[:, None] + squares[None]  # x^2 + y^2: columns are x, rows are y
    tokens[1, 0] = squares[:, None].expand(PLANE, PLANE)  # z^2: rows of the plane xz
    upsample = model.post_processor.upsample
    upsample.weight[:, 0], upsample.bias[0] = 0, 0
    upsample.weight[0, 0] = 1
    read_planes(model.decoder)


def read_planes(decoder: Decoder) -> None:
    """Let the density cross its level where channel 0 of the three planes adds up to RADIUS^2, and
    be higher where it is less. In place; under `torch.no_grad()`."""
    *hidden, last = (layer for layer in decoder.layers if isinstance(layer, nn.Linear))
    sums = torch.zeros(hidden[0].in_features)
    sums[:: len(sums) // 3] = 1
    difference = torch.zeros(last.in_features)
    difference[0], difference[1] = 1, -1
    for layer in hidden:
        row = sums if layer is hidden[0] else difference
        layer.weight[0], layer.weight[1] = row, -row  # silu(a) - silu(-a) = a
        layer.bias[:2] = 0
    last.weight[0] = 0
    last.weight[0, 0], last.weight[0, 1] = -_STEEPNESS, _STEEPNESS
    last.bias[0] = _STEEPNESS * RADIUS**2 + 1 + math.log(25.0)
    last.bias[1:] = torch.tensor([1.0, 0.0, -1.0])
