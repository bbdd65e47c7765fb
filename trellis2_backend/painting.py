"""A material for every voxel of a given shape: TRELLIS.2's second pipeline, up to its voxels.

    pipeline = PaintingPipeline.open(checkpoint_folder, encoder_folder, dino_folder)
    attributes = pipeline.paint(dual_grid, cutout, seed=1)

N voxels, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Generator, Tensor, nn

from onelook.nn.subdivision import pyramid
from onelook.nn.voxels import Voxels
from onelook.report import Report
from onelook.residency.device import Device
from onelook.residency.plan import Stage
from onelook.weights.layouts import read_pipeline
from trellis2_backend.conditioning import PictureEncoder, open_dino
from trellis2_backend.dual_grid import DualGrid
from trellis2_backend.networks import open_network
from trellis2_backend.request import WORKING_BYTES, Encoder, Request, open_residency
from trellis2_backend.sampler import SamplerParams
from trellis2_backend.settings import ENCODER, ROLES, Settings, read_settings, require_match

ENCODER_STEM = "ckpts/shape_enc_next_dc_f16c32_fp16"
_USED = ("texture_flow_512", "texture_flow_1024", "texture_decoder")
_STAGES = [
    Stage("condition", ("encoder",)),
    Stage("encode_shape", (ENCODER,), WORKING_BYTES["decode"]),
    Stage("texture_512", ("texture_flow_512",), WORKING_BYTES["512"]),
    Stage("texture_1024", ("texture_flow_1024",), WORKING_BYTES["1024"]),
    Stage("decode_texture", ("texture_decoder",), WORKING_BYTES["decode"]),
]


class PaintingPipeline:
    """Holds the networks and nothing of a request. For one thread at a time."""

    step_shares = {"condition": 2, "encode_shape": 6, "texture": 20, "decode_texture": 6}

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        encoder: Encoder,
        settings: Settings,
        device: str | Device = "auto",
        vram: str | float = "auto",
        host_type: torch.dtype = torch.float32,
    ):
        """networks: the texture's flows and decoder and the shape's encoder, by the names in
        `settings`. Raises WeightsError when the networks do not fit together."""
        self.networks = dict(networks)
        require_match(settings, self.networks, encoder.width)
        self.encoder = encoder
        self.settings = settings
        self.residency = open_residency(self.networks, encoder, _STAGES, device, vram, host_type)

    @staticmethod
    def open(
        folder: Path,
        shape_encoder: Path,
        encoder: Path,
        device: str = "auto",
        vram: str | float = "auto",
    ) -> PaintingPipeline:
        """Open checkpoints in the official layout, mapped, nothing copied.

        folder: with pipeline.json. shape_encoder: with the pair ENCODER_STEM. encoder: DINOv3 (see
        `open_dino`). Raises WeightsError when a file is missing, damaged or of another checkpoint.
        """
        pipeline = read_pipeline(folder)
        networks = {
            name: open_network(pipeline.stem(role), name)
            for role, name in ROLES.items()
            if name in _USED
        }
        networks[ENCODER] = open_network(shape_encoder / ENCODER_STEM, ENCODER)
        picture_encoder = PictureEncoder(open_dino(encoder))
        return PaintingPipeline(networks, picture_encoder, read_settings(pipeline), device, vram)

    def paint(
        self,
        grid: DualGrid,
        picture: Image.Image,
        seed: int = 42,
        params: SamplerParams | None = None,
        report: Report | None = None,
    ) -> Tensor:
        """A shape and a picture of it -> (N, 6) float32 of its voxels: base colour (sRGB-encoded),
        metallic, roughness, alpha, about 0..1.

        grid: as `mesh_to_dual_grid` makes it. picture: a cut-out (RGBA), or one that is framed
        (RGB). params: the sampler's numbers, default pipeline.json's.
        Raises ForegroundError for an empty cut-out, GenerationError when a stage gives nothing
        usable.
        """
        size = "512" if grid.resolution == 512 else "1024"
        work = _Painting(
            self.networks,
            self.encoder,
            self.residency,
            seed,
            report or Report(),
            settings=self.settings,
            params=params or self.settings.texture,
            size=size,
        )
        stages = ["condition", "encode_shape", f"texture_{size}", "decode_texture"]
        paint = torch.inference_mode()(lambda: work.paint(grid, picture))
        return self.residency.run(paint, stages, work.report.note)


@dataclass(frozen=True, kw_only=True)
class _Painting(Request):
    """One request; size: "512" or "1024", of the picture and by the name of the flow."""

    settings: Settings
    params: SamplerParams
    size: str

    def paint(self, grid: DualGrid, picture: Image.Image) -> Tensor:
        generator = Generator().manual_seed(self.seed)
        tokens = self.condition(picture, [int(self.size)])[int(self.size)]
        encoder, decoder = self.networks[ENCODER], self.networks["texture_decoder"]
        coords = grid.coords.to(self.device, torch.int32)
        voxels = Voxels(torch.cat([torch.zeros_like(coords[:, :1]), coords], dim=1))
        with self.report.step("encode_shape"), self.residency.stage("encode_shape"):
            levels = pyramid(voxels, encoder.config.doublings)
            feats = encoder.features(
                grid.offsets.to(self.device, torch.float32), grid.intersected.to(self.device)
            )
            shape = encoder(feats, levels)
            self.require_finite(shape.feats, "encode_shape")
        beside = self.settings.shape_norm.apply(shape.feats)
        latent = self.latent(
            f"texture_{self.size}", tokens, shape.voxels, self.params, generator, beside
        )
        latent = self.settings.texture_norm.undo(latent)
        with self.report.step("decode_texture"), self.residency.stage("decode_texture"):
            out = decoder(shape.with_feats(latent), levels[::-1])
            self.require_finite(out.feats, "decode_texture")
        return out.feats * 0.5 + 0.5
