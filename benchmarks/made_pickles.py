"""Made-up checkpoints of full size of the systems whose networks are pickles.

InstantMesh with Zero123++, and TripoSR. Random numbers as in `made_checkpoints`, but for the heads
that tell the surface from channel 0 of the planes, see `made_triplane`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
import yaml
from helpers import instantmesh_checkpoint, triposr_checkpoint
from helpers.golden import seed_weights
from made_checkpoints import (
    KeyList,
    made_numbers,
    read_key_list,
    write_json,
    write_safetensors,
)
from torch import Tensor

from instantmesh_backend.decoder_heads import MeshHeads
from instantmesh_backend.reconstruction import PREFIX
from triposr_backend.config import DecoderConfig
from triposr_backend.scene_model import Decoder

ZERO123PLUS, INSTANTMESH = "sudo-ai/zero123plus-v1.2", "TencentARC/InstantMesh"
TRIPOSR = "stabilityai/TripoSR"
_ZERO123PLUS_WEIGHTS = {  # all but those of the UNet, in whose place InstantMesh's come
    "vae": "diffusion_pytorch_model.safetensors",
    "vision_encoder": "model.safetensors",
    "text_encoder": "model.safetensors",
}
_PICTURE_SIDES = {"feature_extractor_vae": 512, "feature_extractor_clip": 224}


def make_zero123plus(root: Path) -> Path:
    """Zero123++ without its UNet's weights under `root`, 4.2 GB; returns its folder. Complete files
    are kept. Its text encoder knows the tokenizer's words of the tiny checkpoint only."""
    folder = root / ZERO123PLUS
    for name, file in _ZERO123PLUS_WEIGHTS.items():
        wanted = read_key_list("instantmesh", f"zero123plus_{name}")
        write_safetensors(folder / name / file, wanted.tensors, wanted.types, hollow=False)
        write_json(folder / name / "config.json", wanted.config)
    unet = read_key_list("instantmesh", "zero123plus_unet")
    write_json(folder / "unet" / "config.json", unet.config)
    write_json(folder / "model_index.json", {})
    scheduler = instantmesh_checkpoint.SCHEDULER
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    tiny = (instantmesh_checkpoint.PIXELS_VAE, instantmesh_checkpoint.PIXELS_CLIP)
    for (name, side), pixels in zip(_PICTURE_SIDES.items(), tiny, strict=True):
        sides = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        write_json(folder / name / "preprocessor_config.json", pixels | sides)
    instantmesh_checkpoint.write_tokenizer(folder / "tokenizer")
    return folder


def make_instantmesh(root: Path) -> Path:
    """InstantMesh's UNet and its large mesh model, 5.0 GB; otherwise as `make_zero123plus`."""
    folder = root / INSTANTMESH
    unet = read_key_list("instantmesh", "zero123plus_unet")
    _write_pickle(folder / "diffusion_pytorch_model.bin", lambda: _tensors(unet))

    def checkpoint() -> dict[str, Any]:
        wanted = read_key_list("instantmesh", "instant_mesh_large")
        heads = seed_weights(MeshHeads(wanted.config["triplane_dim"]), seed=1)
        with torch.no_grad():
            instantmesh_checkpoint.read_planes(heads, wanted.config["triplane_dim"])
        tensors = _tensors(wanted) | _under("synthesizer.decoder.", heads.state_dict())
        return {"state_dict": _under(PREFIX, tensors)}

    _write_pickle(folder / "instant_mesh_large.ckpt", checkpoint)
    return folder


def make_triposr(root: Path) -> Path:
    """TripoSR, 1.7 GB; otherwise as `make_zero123plus`. Not as long as the published file, so it
    is to be named by its folder."""
    folder = root / TRIPOSR
    wanted = read_key_list("triposr", "model.ckpt")

    def checkpoint() -> dict[str, Tensor]:
        decoder = seed_weights(Decoder(DecoderConfig(**wanted.config["decoder"])), seed=1)
        with torch.no_grad():
            triposr_checkpoint.read_planes(decoder)
        return _tensors(wanted) | _under("decoder.", decoder.state_dict())

    _write_pickle(folder / "model.ckpt", checkpoint)
    (folder / "config.yaml").write_text(yaml.safe_dump(wanted.config))
    return folder


def _tensors(wanted: KeyList) -> dict[str, Tensor]:
    made = {}
    for key, shape in wanted.tensors.items():
        flat = torch.frombuffer(bytearray(made_numbers("F32", prod(shape))), dtype=torch.float32)
        made[key] = flat.view(shape)
    return made


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def _write_pickle(path: Path, make: Callable[[], Mapping[str, Any]]) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    torch.save(make(), temporary)
    os.replace(temporary, path)
