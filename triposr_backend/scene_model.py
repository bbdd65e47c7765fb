"""TripoSR's network: a picture in, a triplane (its authors' scene code) out, and what decodes it.

Tochilkin et al., TripoSR: Fast 3D Object Reconstruction from a Single Image, 2024. Keys are those
of the official model.ckpt.

B pictures, L tokens of a picture, R tokens along a side of a plane, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onelook.nn.vit import ViT, ViTConfig, normalise_pixels
from triposr_backend.backbone import Transformer1D
from triposr_backend.config import DecoderConfig, TokenizerConfig, TripoSRConfig

# May come to the device in turn.
BLOCKS = ("image_tokenizer.model.encoder.layer", "backbone.transformer_blocks")


class TripoSR(nn.Module):
    """The whole network."""

    def __init__(self, config: TripoSRConfig):
        super().__init__()
        self.config = config
        self.image_tokenizer = ImageTokenizer(config.vit)
        self.tokenizer = TriplaneTokenizer(config.tokenizer)
        self.backbone = Transformer1D(config.backbone)
        planes = config.post_processor
        self.post_processor = TriplaneUpsampler(planes.in_channels, planes.out_channels)
        self.decoder = Decoder(config.decoder)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, S, S) 0..1, S = cond_image_size -> planes (B, 3, C, 2 R, 2 R)."""
        picture = self.image_tokenizer(images)
        tokens = self.backbone(self.tokenizer(len(images)), picture)
        return self.post_processor(self.tokenizer.detokenize(tokens))


class ImageTokenizer(nn.Module):
    """DINO's tokens after its last norm; the pooler it comes with is not used."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.model = ViT(config, has_pooler=True)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) 0..1 -> tokens (B, L, C)."""
        return self.model(normalise_pixels(images))


class TriplaneTokenizer(nn.Module):
    """Learned tokens of the planes, and the way back from tokens to planes."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        size, channels = config.plane_size, config.num_channels
        self.embeddings = nn.Parameter(torch.zeros(3, channels, size, size))

    def forward(self, batch: int) -> Tensor:
        """-> tokens (B, C, 3 * R * R), plane by plane, row by row."""
        return self.embeddings.movedim(0, 1).flatten(1).expand(batch, -1, -1)

    def detokenize(self, tokens: Tensor) -> Tensor:
        """tokens (B, C, 3 * R * R) -> (B, 3, C, R, R)."""
        return tokens.unflatten(2, (3, *self.embeddings.shape[2:])).movedim(2, 1)


class TriplaneUpsampler(nn.Module):
    """Each plane twice as fine."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, planes: Tensor) -> Tensor:
        """(B, 3, C, R, R) -> (B, 3, C, 2 R, 2 R)."""
        return self.upsample(planes.flatten(0, 1)).unflatten(0, (-1, 3))


class Decoder(nn.Module):
    """Features of a point -> density and colour, both before their activation; see `SceneField`."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        layers: list[nn.Module] = []
        width = config.in_channels
        for _ in range(config.n_hidden_layers):
            layers += [nn.Linear(width, config.n_neurons), nn.SiLU()]
            width = config.n_neurons
        self.layers = nn.Sequential(*layers, nn.Linear(width, 4))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) -> (N, 4): density, colour."""
        return self.layers(features)
