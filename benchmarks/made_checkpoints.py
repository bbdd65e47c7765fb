"""Made-up checkpoints of full size: the real names, shapes, types and layouts, random numbers.

The key lists under tests/golden say what the official files hold. Each file is written as
safetensors writes it (github.com/huggingface/safetensors: length of the header, the header as
compact JSON, the bytes; larger types first, then by name), so a made file is as long as the
published one. A hollow file has the right header and a hole in place of the numbers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
TRELLIS, TRELLIS2 = "microsoft/TRELLIS-image-large", "microsoft/TRELLIS.2-4B"
DINO = "facebook/dinov2-with-registers-large"
DINO3 = "facebook/dinov3-vitl16-pretrain-lvd1689m"

TRELLIS_ROLES = {
    "sparse_structure_decoder": "ss_dec_conv3d_16l8_fp16",
    "sparse_structure_flow_model": "ss_flow_img_dit_L_16l8_fp16",
    "slat_decoder_gs": "slat_dec_gs_swin8_B_64l8gs32_fp16",
    "slat_decoder_rf": "slat_dec_rf_swin8_B_64l8r16_fp16",
    "slat_decoder_mesh": "slat_dec_mesh_swin8_B_64l8m256c_fp16",
    "slat_flow_model": "slat_flow_img_dit_L_64l8p2_fp16",
}
_SAMPLER = {
    "name": "FlowEulerGuidanceIntervalSampler",
    "args": {"sigma_min": 1e-5},
    "params": {"steps": 25, "cfg_strength": 5.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
}
_DINO_CONFIG = {  # ViT-L/14 with registers
    "model_type": "dinov2_with_registers",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 518,
    "patch_size": 14,
    "num_register_tokens": 4,
}
_DINO3_CONFIG = {  # ViT-L/16
    "model_type": "dinov3_vit",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 16,
    "num_register_tokens": 4,
    "key_bias": False,
}

# TRELLIS computes in half precision inside these, but for their norms.
_TORSO = ("blocks", "middle_block", "input_blocks", "out_blocks", "upsample")
_NORM = re.compile(r"norm|act_layers\.0\.|out_layers\.1\.")
_TYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_POOL_NUMBERS = 1 << 24


@dataclass(frozen=True)
class KeyList:
    """One official file. tensors: key -> shape; types: key -> type as safetensors names it;
    published_bytes: None where not known."""

    class_name: str
    config: dict[str, Any]
    tensors: dict[str, list[int]]
    types: dict[str, str]
    published_bytes: int | None


def read_key_list(system: str, stem: str) -> KeyList:
    """system: a folder of tests/golden."""
    content = json.loads((GOLDEN / system / "manifest" / f"{stem}.json").read_text("utf-8"))
    only = content.get("stored_dtype")
    types = {
        key: only if only in _TYPE_BYTES else "F16" if _is_half(key) else "F32"
        for key in content["tensors"]
    }
    size = content.get("published_file_size") or content.get("published_file_bytes")
    return KeyList(content["class"], content["config"], content["tensors"], types, size)


def make_trellis(root: Path) -> Path:
    """TRELLIS-image-large under `root`, 3.0 GB; returns its folder. Complete files are kept."""
    folder = root / TRELLIS
    for stem in TRELLIS_ROLES.values():
        _write_pair(folder / "ckpts" / stem, read_key_list("trellis", stem))
    models = {role: f"ckpts/{stem}" for role, stem in TRELLIS_ROLES.items()}
    args = {
        "models": models,
        "sparse_structure_sampler": _SAMPLER,
        "slat_sampler": _SAMPLER,
        "slat_normalization": {"mean": [0.0] * 8, "std": [1.0] * 8},
        "image_cond_model": "dinov2_vitl14_reg",
    }
    write_json(folder / "pipeline.json", {"name": "TrellisImageTo3DPipeline", "args": args})
    return folder


def make_trellis2(root: Path, hollow: bool = True) -> Path:
    """TRELLIS.2-4B and the decoder it borrows, 16 GB: hollow they take no room on the disk.

    The decoder is part of TRELLIS-image-large: not written where `make_trellis` has been.
    """
    folder = root / TRELLIS2
    described = json.loads((GOLDEN / "trellis2/manifest/pipeline.json").read_text("utf-8"))
    for place in described["content"]["args"]["models"].values():
        stem = folder / place if place.startswith("ckpts/") else root / place
        _write_pair(stem, read_key_list("trellis2", stem.name), hollow)
    write_json(folder / "pipeline.json", described["content"])
    return folder


def make_dino(root: Path) -> Path:
    """DINOv2 ViT-L/14 with registers as the hub has it, 1.2 GB; returns its folder."""
    import torch
    from transformers import Dinov2WithRegistersConfig

    from trellis_backend.conditioning import build_dino

    with torch.device("meta"):
        state = build_dino(Dinov2WithRegistersConfig(**_DINO_CONFIG)).state_dict()
    shapes = {key: list(value.shape) for key, value in state.items()}
    return _write_hub_folder(root / DINO, shapes, _DINO_CONFIG)


def make_dino3(root: Path) -> Path:
    """DINOv3 ViT-L/16 as the hub has it, 1.2 GB; returns its folder."""
    import torch
    from transformers import DINOv3ViTConfig

    from trellis2_backend.conditioning import build_dino

    with torch.device("meta"):
        state = build_dino(DINOv3ViTConfig(**_DINO3_CONFIG)).state_dict()
    shapes = {key.removeprefix("model."): list(value.shape) for key, value in state.items()}
    return _write_hub_folder(root / DINO3, shapes, _DINO3_CONFIG)


def _write_hub_folder(folder: Path, shapes: dict[str, list[int]], config: dict[str, Any]) -> Path:
    write_safetensors(
        folder / "model.safetensors", shapes, dict.fromkeys(shapes, "F32"), hollow=False
    )
    write_json(folder / "config.json", config)
    return folder


def _is_half(key: str) -> bool:
    return key.split(".")[0] in _TORSO and not _NORM.search(key)


def _write_pair(stem: Path, wanted: KeyList, hollow: bool = False) -> None:
    weights = stem.with_name(stem.name + ".safetensors")
    write_safetensors(weights, wanted.tensors, wanted.types, hollow)
    content = {"name": wanted.class_name, "args": wanted.config}
    write_json(stem.with_name(stem.name + ".json"), content)


def write_safetensors(
    path: Path, shapes: Mapping[str, list[int]], types: Mapping[str, str], hollow: bool
) -> None:
    """A file of that layout at `path`, unless it is there already."""
    head, size = header(shapes, types)
    if path.is_file() and path.stat().st_size == len(head) + size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        file.write(head)
        if hollow:
            file.truncate(len(head) + size)
        else:
            for key in in_file_order(types):
                file.write(made_numbers(types[key], prod(shapes[key])))
    os.replace(temporary, path)


def header(shapes: Mapping[str, list[int]], types: Mapping[str, str]) -> tuple[bytes, int]:
    """What a safetensors file begins with, and how many bytes of numbers follow."""
    entries, end = {}, 0
    for key in in_file_order(types):
        start, end = end, end + prod(shapes[key]) * _TYPE_BYTES[types[key]]
        entries[key] = {"dtype": types[key], "shape": shapes[key], "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end


def in_file_order(types: Mapping[str, str]) -> list[str]:
    """Larger types first, then by name."""
    return sorted(types, key=lambda key: (-_TYPE_BYTES[types[key]], key))


_pools: dict[str, np.ndarray] = {}


def made_numbers(kind: str, count: int) -> bytes:
    """Normally distributed numbers of the usual size of weights, the same pool over and over."""
    if not _pools:
        drawn = np.random.default_rng(0).standard_normal(_POOL_NUMBERS, dtype=np.float32) * 0.02
        _pools["F32"], _pools["F16"] = drawn, drawn.astype(np.float16)
        _pools["BF16"] = (drawn.view(np.uint32) >> 16).astype(np.uint16)  # cut off, not rounded
    return np.resize(_pools[kind][:count], count).tobytes()


def write_json(path: Path, content: Any) -> None:
    """Like the official small files; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4))
