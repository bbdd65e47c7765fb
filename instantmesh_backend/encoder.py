"""Views of an object and where they were taken from -> the tokens the triplanes are made of.

B objects, V views, L tokens of a view, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from onelook.nn.vit import ViT, ViTConfig, normalise_pixels

CAMERA_NUMBERS = 16  # see `cameras.py`


class ViewEncoder(nn.Module):
    """DINO, each of whose layers is modulated by the view's camera."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        width = config.hidden_size
        self.model = ViT(config, is_modulated=True)
        self.camera_embedder = nn.Sequential(
            nn.Linear(CAMERA_NUMBERS, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, images: Tensor, cameras: Tensor) -> Tensor:
        """images (B, V, 3, H, W) 0..1, cameras (B, V, 16) -> tokens (B, V * L, C), by view."""
        embedded = self.camera_embedder(cameras).flatten(0, 1)  # (B V, C)
        tokens = self.model(normalise_pixels(images.flatten(0, 1)), embedded)  # (B V, L, C)
        return tokens.unflatten(0, images.shape[:2]).flatten(1, 2)
