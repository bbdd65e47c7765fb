"""Zero123++ v1.2: one picture of an object -> six views of it on white.

Shi et al., Zero123++: a Single Image to Consistent Multi-view Diffusion Base Model, 2023. The
networks are Stable Diffusion 2's, as diffusers and transformers have them; what is Zero123++'s own
is the reference attention, the ramp that spreads CLIP's one vector over the text's tokens, and the
scaling of latents and pixels.

G guidance lanes (the unconditional one first; only the other one without guidance), h and w of a
latent, L tokens, C channels, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from instantmesh_backend.preparation import PixelSettings, encoder_pixels
from instantmesh_backend.reference_attention import (
    ReadPass,
    ReferenceBank,
    WritePass,
    install,
    last_self_attention,
)
from instantmesh_backend.sampler import Noise, Schedule, draw_noise

Array = np.ndarray

HEIGHT, WIDTH = 960, 640  # three rows of two views of 320 x 320
# A GPU is not busy with one reference at a time, and its passes need no views: these many steps'
# are one batch. Our choice; the bank takes about 90 MB for each.
STEPS_TOGETHER_ON_GPU = 4
# What a device too small for a network may get in turn, see `onelook.residency.networks`.
UNET_BLOCKS = ("down_blocks", "mid_block", "up_blocks")
VISION_BLOCKS = ("vision_model.encoder.layers",)
_LATENT_SHIFT, _LATENT_SCALE = 0.22, 0.75  # what the latents of views were trained with
_PIXEL_SCALE = 0.5 / 0.8  # likewise of their pixels


@dataclass(frozen=True)
class Zero123Settings:
    """What the checkpoint's small files say. ramp (L,): share of CLIP's vector that each token of
    the text gets; empty_prompt (L,): its tokens' numbers; scheduler: see `Schedule.of_config`."""

    ramp: tuple[float, ...]
    empty_prompt: tuple[int, ...]
    vae_pixels: PixelSettings
    clip_pixels: PixelSettings
    scheduler: dict[str, Any]
    height: int = HEIGHT
    width: int = WIDTH


@dataclass(frozen=True)
class ViewCondition:
    """What the picture is to the denoiser: tokens (G, L, C), latents (G, 4, h, w) float32."""

    tokens: Tensor
    latents: Tensor


class Zero123Plus:
    """The networks and what is done with them; which of them is on the device is decided outside.

    unet: UNet2DConditionModel; vae: AutoencoderKL; vision: CLIPVisionModelWithProjection; text:
    CLIPTextModel, used once, on the CPU, for the empty prompt.
    """

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        vision: nn.Module,
        text: nn.Module,
        settings: Zero123Settings,
    ):
        install(unet)
        self.unet, self.vae, self.vision = unet, vae, vision
        self.settings = settings
        self._text: nn.Module | None = text
        self._grey: tuple[Tensor, Tensor] | None = None

    def schedule(self, steps: int) -> Schedule:
        return Schedule.of_config(self.settings.scheduler, steps)

    def draw_noise(self, seed: int, steps: int, guidance_scale: float) -> Noise:
        """Every random number of a request, on the CPU; guidance counts above 1."""
        shrink = 2 ** (len(self.vae.config.block_out_channels) - 1)
        picture = self.settings.vae_pixels.crop // shrink
        views = self.settings.height // shrink, self.settings.width // shrink
        lanes = 2 if guidance_scale > 1 else 1
        return draw_noise(seed, steps, lanes, (picture, picture), views)

    @cached_property
    def empty_text(self) -> Tensor:
        """The tokens of the empty prompt (1, L, C), float32 on the CPU: always the same, so the
        text encoder runs once and goes."""
        assert self._text is not None
        numbers = torch.tensor([self.settings.empty_prompt])
        tokens = self._text.float()(input_ids=numbers).last_hidden_state
        self._text = None
        return tokens

    def condition(self, picture: Image.Image, noise: Noise) -> ViewCondition:
        """RGB, and noise on the device -> the condition. Uses `vision` and `vae`."""
        lanes, device = len(noise.encoding), noise.encoding.device
        settings, kind = self.settings, self.vision.visual_projection.weight.dtype
        pixels = torch.from_numpy(encoder_pixels(picture, settings.clip_pixels))
        embedding = self.vision(pixel_values=pixels.to(device, kind)).image_embeds  # (1, C)
        ramp = torch.tensor(settings.ramp, device=device, dtype=kind)[:, None]
        text = self.empty_text.to(device, kind)
        tokens = text + embedding[:, None] * ramp  # (1, L, C)
        pixels = torch.from_numpy(encoder_pixels(picture, settings.vae_pixels)).to(device)
        moments = [self._encode(pixels)]
        if lanes == 2:
            moments.insert(0, self._grey_moments(pixels))
            tokens = torch.cat([text, tokens])
        mean, deviation = (torch.cat(part) for part in zip(*moments, strict=True))
        # A sample, and not scaled by the VAE's factor: the original gives it to the UNet like this.
        return ViewCondition(tokens, mean + deviation * noise.encoding)

    def denoiser(
        self, condition: ViewCondition, schedule: Schedule, noise: Noise
    ) -> ReferenceDenoiser:
        """See there."""
        together = STEPS_TOGETHER_ON_GPU if noise.initial.is_cuda else 1
        return ReferenceDenoiser(self.unet, condition, schedule, noise.reference, together)

    def decode(self, latents: Tensor) -> Array:
        """latents (1, 4, h, w) -> the six views, uint8 (H, W, 3). Uses `vae`."""
        latents = unscale_latents(latents) / self.vae.config.scaling_factor
        kind = self.vae.decoder.conv_in.weight.dtype
        pixels = self.vae.decode(latents.to(kind), return_dict=False)[0]
        return to_picture(pixels.float())

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, float32."""
        kind = self.vae.encoder.conv_in.weight.dtype
        drawn_from = self.vae.encode(pixels.to(kind)).latent_dist
        return drawn_from.mean.float(), drawn_from.std.float()

    def _grey_moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the picture that guidance leads away from: mid grey, always the same."""
        if self._grey is None:
            self._grey = self._encode(torch.zeros_like(like))
        return self._grey[0].to(like.device), self._grey[1].to(like.device)


class ReferenceDenoiser:
    """The two passes of a step as one function: see `sampler.Denoiser`.

    The passes over the picture need nothing of the views, so those of `together` steps are one
    batch. Uses `unet`.
    """

    def __init__(
        self,
        unet: nn.Module,
        condition: ViewCondition,
        schedule: Schedule,
        noise: Tensor,
        together: int = 1,
    ):
        """noise (S, G, 4, h, w): the picture's, step by step."""
        self._unet = unet
        self._condition = condition
        self._schedule = schedule
        self._noise = noise
        self._together = together
        self._last = last_self_attention(unet)
        self.bank = ReferenceBank()

    def __call__(self, step: int, latents: Tensor) -> Tensor:
        """latents (1, 4, h, w), scaled -> v of every lane (G, 4, h, w)."""
        place = step % self._together
        if place == 0:
            self._write(step)
        lanes = latents.expand(len(self._condition.latents), -1, -1, -1)
        return self._pass(lanes, self._schedule.timesteps[step], ReadPass(self.bank, place))

    def _write(self, first: int) -> None:
        steps = range(first, min(first + self._together, len(self._schedule)))
        clean = self._condition.latents
        rows = [self._schedule.noised(clean, self._noise[step], step) for step in steps]
        times = self._schedule.timesteps[first : steps.stop].repeat_interleave(len(clean))
        writing = WritePass(self.bank, len(steps), self._last)
        self._pass(torch.cat(rows), times.to(clean.device), writing)

    def _pass(self, rows: Tensor, times: Tensor, reference: WritePass | ReadPass) -> Tensor:
        return self._unet(
            rows.to(self._unet.conv_in.weight.dtype),
            times,
            encoder_hidden_states=self._condition.tokens,
            cross_attention_kwargs={"reference": reference},
            return_dict=False,
        )[0]


def unscale_latents(latents: Tensor) -> Tensor:
    """Latents of views as sampled -> as the VAE knows them, but for its own factor."""
    return latents / _LATENT_SCALE + _LATENT_SHIFT


def unscale_image(pixels: Tensor) -> Tensor:
    """Pixels of views as the VAE gives them -> -1..1."""
    return pixels / _PIXEL_SCALE


def to_picture(pixels: Tensor) -> Array:
    """(1, 3, H, W) as the VAE gives them -> uint8 (H, W, 3)."""
    shares = (unscale_image(pixels) / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0)
    return (255 * shares).round().to(torch.uint8).cpu().numpy()
