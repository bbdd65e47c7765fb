"""Open Zero123++ as it is published: mapped, with exactly its keys.

sudo-ai/zero123plus-v1.2 is a diffusers folder with a sub-folder for each component. In the place of
its UNet comes InstantMesh's (TencentARC/InstantMesh), a bare file, which paints on white.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from instantmesh_backend.preparation import PixelSettings
from instantmesh_backend.sampler import Schedule
from instantmesh_backend.zero123plus import Zero123Plus, Zero123Settings
from onelook.errors import WeightsError
from onelook.weights.layouts import folder_weights, read_json, require_folder
from onelook.weights.opening import build_empty, fill_model, open_model, read_tensors

# In the official model_index.json; used where it has none.
RAMP = (
    0.00301829120144248, 0.2204633206129074, 0.21527841687202454, 0.23498539626598358,
    0.1914631873369217, 0.20188239216804504, 0.19352824985980988, 0.17249998450279236,
    0.15826298296451569, 0.15236389636993408, 0.13444548845291138, 0.12044154852628708,
    0.12808501720428467, 0.1271015852689743, 0.13629068434238434, 0.14516159892082214,
    0.15645112097263336, 0.16885493695735931, 0.18022602796554565, 0.1958882212638855,
    0.21415705978870392, 0.23056700825691223, 0.2505834102630615, 0.2574525773525238,
    0.275470107793808, 0.2808215022087097, 0.29953837394714355, 0.2967497408390045,
    0.2883710563182831, 0.3023308515548706, 0.3054688572883606, 0.32596179842948914,
    0.3225354254245758, 0.3140765428543091, 0.3288663625717163, 0.3435625731945038,
    0.3342442810535431, 0.32937031984329224, 0.35734811425209045, 0.3601177930831909,
    0.3517529368400574, 0.3810708224773407, 0.40007662773132324, 0.4264647364616394,
    0.3977527916431427, 0.4314143657684326, 0.49558719992637634, 0.4665665030479431,
    0.48960328102111816, 0.5141982436180115, 0.5230164527893066, 0.5266074538230896,
    0.5456079840660095, 0.5737904906272888, 0.5882097482681274, 0.6210350394248962,
    0.6530380845069885, 0.6383244395256042, 0.6792004704475403, 0.6567418575286865,
    0.7517656683921814, 0.736494243144989, 0.7586457133293152, 0.8130561709403992,
    0.9578766226768494, 1.001284122467041, 0.9404520988464355, 1.004292368888855,
    0.9145274758338928, 0.9771682620048523, 1.0350638628005981, 1.0265849828720093,
    1.0594775676727295, 0.980824887752533, 1.0715670585632324, 1.0140161514282227,
    1.1983819007873535,
)  # fmt: skip
# Names that diffusers gave a VAE's attention before 0.18 -> since.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def open_zero123plus(folder: Path, unet_file: Path) -> Zero123Plus:
    """folder: the diffusers folder, whose own UNet may be missing; unet_file: InstantMesh's.

    Raises WeightsError when a file is missing, damaged or of another network.
    """
    require_folder(folder)
    text, length = _open_text(folder / "text_encoder")
    settings = _read_settings(folder, length)
    unet_config = read_json(folder / "unet" / "config.json")
    unet = open_model(lambda: _fitting(build_unet, "unet", unet_config), unet_file)
    vae_config = read_json(folder / "vae" / "config.json")
    vae = open_model(
        lambda: _fitting(build_vae, "vae", vae_config),
        folder_weights(folder / "vae"),
        rename=_new_attention_name,
    )
    vision = _open_vision(folder / "vision_encoder")
    try:
        return Zero123Plus(unet, vae, vision, text, settings)
    except ValueError as error:
        raise WeightsError(f"unet/config.json does not fit Zero123++: {error}") from error


def build_unet(config: dict[str, Any]) -> nn.Module:
    """diffusers' UNet2DConditionModel; what its config.json holds besides is left out."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(**_known(UNet2DConditionModel, config))


def build_vae(config: dict[str, Any]) -> nn.Module:
    """diffusers' AutoencoderKL, likewise."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(**_known(AutoencoderKL, config))


def build_vision(config: dict[str, Any]) -> nn.Module:
    """transformers' CLIPVisionModelWithProjection."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config))


def build_text(config: dict[str, Any]) -> nn.Module:
    """transformers' CLIPTextModel, whose keys in files begin with "text_model."."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig.from_dict(config))


def _open_vision(folder: Path) -> nn.Module:
    network = _empty(build_vision, folder)
    return _fill_clip(network, network.vision_model.embeddings, folder)


def _open_text(folder: Path) -> tuple[nn.Module, int]:
    """The text encoder, and how many tokens its prompts have."""
    network = _empty(build_text, folder)
    _fill_clip(network, network.embeddings, folder, prefix="text_model.")
    return network, network.config.max_position_embeddings


def _fill_clip(network: nn.Module, embeddings: nn.Module, folder: Path, prefix: str = ""):
    count = embeddings.position_embedding.num_embeddings
    embeddings.position_ids = torch.arange(count, device="cpu")[None]  # in no file
    path = folder_weights(folder)
    tensors = read_tensors(path, prefix=prefix, ignore=["position_ids"])
    return fill_model(network, tensors, f"{folder.name}/{path.name}")


def _empty(build: Callable[[dict[str, Any]], nn.Module], folder: Path) -> nn.Module:
    require_folder(folder)
    config = read_json(folder / "config.json")
    return build_empty(lambda: _fitting(build, folder.name, config))


def _fitting(build: Callable[[dict[str, Any]], nn.Module], name: str, config: Any) -> nn.Module:
    try:
        return build(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{name}/config.json is of another network ({type(error).__name__}: {error})"
        ) from error


def _known(network: type[nn.Module], config: dict[str, Any]) -> dict[str, Any]:
    names = inspect.signature(network.__init__).parameters
    return {name: value for name, value in config.items() if name in names}


def _new_attention_name(key: str) -> str:
    parts = key.split(".")
    if "attentions" in parts and parts[-2] in _OLD_ATTENTION:
        parts[-2] = _OLD_ATTENTION[parts[-2]]
    return ".".join(parts)


def _read_settings(folder: Path, length: int) -> Zero123Settings:
    """length: tokens of a prompt."""
    index = read_json(folder / "model_index.json")
    try:
        settings = Zero123Settings(
            ramp=tuple(map(float, index.get("ramping_coefficients") or RAMP)),
            empty_prompt=_empty_prompt(folder / "tokenizer", length),
            vae_pixels=_read_pixels(folder, "feature_extractor_vae"),
            clip_pixels=_read_pixels(folder, "feature_extractor_clip"),
            scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
        )
        Schedule.of_config(settings.scheduler, 1)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"the folder's small files are of another system ({type(error).__name__}: {error});"
            " expected those of zero123plus-v1.2"
        ) from error
    if len(settings.ramp) != length:
        raise WeightsError(
            f"model_index.json has {len(settings.ramp)} ramping_coefficients for {length} tokens of"
            " a text; are files of two checkpoints mixed?"
        )
    return settings


def _read_pixels(folder: Path, name: str) -> PixelSettings:
    return PixelSettings.of_json(read_json(folder / name / "preprocessor_config.json"))


def _empty_prompt(folder: Path, length: int) -> tuple[int, ...]:
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(
            "zero123plus-v1.2 needs its tokenizer folder with vocab.json and merges.txt; get it"
            " with: onelook weights pull zero123plus-v1.2"
        ) from error
    return tuple(tokenizer("", padding="max_length", max_length=length).input_ids)
