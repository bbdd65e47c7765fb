"""RenderScene: an asset on a device, ready for any number of pictures.

N vertices, M faces, T texture size in pixels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from onelook.asset.asset import Asset, Textures
from onelook.render.texture import upload_texture

Array = np.ndarray
_ALPHA_MODES = {"OPAQUE": 0, "MASK": 1, "BLEND": 2}
MAX_LAYERS = 8  # surfaces one behind the other that a see-through asset shows


class RenderScene:
    """Uploads the arrays of `asset` and builds its mip levels once.

    device: "cpu", "cuda:0", ...; default: the GPU where there is one. On the CPU the asset's arrays
    are used where they lie, so they must not change while the scene lives.
    """

    def __init__(self, asset: Asset, device: str | None = None):
        import warp as wp

        from onelook.kernels import default_device
        from onelook.render import raster_kernels
        from onelook.render import shade_kernels as kernels

        self.asset = asset
        self.device = device or default_device()
        corners = np.concatenate([asset.normals, asset.uvs], axis=1).astype(np.float32)  # (N, 5)
        arrays = kernels.Scene()
        arrays.positions = self._upload(asset.vertices, np.float32, wp.vec3)
        arrays.corners = wp.array(
            corners.view(kernels.Corner.numpy_dtype()).reshape(-1),
            dtype=kernels.Corner,
            device=self.device,
        )
        arrays.faces = self._upload(asset.faces, np.int32, wp.vec3i)
        textures = asset.textures
        arrays.color = upload_texture(textures.base_color, True, self.device)
        surface = _surface_texture(textures)
        arrays.has_surface = surface is not None
        arrays.has_normals = textures.normal is not None
        arrays.surface = arrays.color
        if surface is not None:
            arrays.surface = upload_texture(surface, False, self.device)
        arrays.metallic = textures.metallic_factor
        arrays.roughness = textures.roughness_factor
        arrays.alpha_mode = _ALPHA_MODES[asset.alpha_mode]
        self.arrays = arrays
        self.screen = raster_kernels.screen_array(len(asset.vertices), self.device)
        self._layers: dict[tuple[int, int], tuple[list[Any], Any]] = {}
        self.shadow: tuple[Any, float, float] | None = None  # see background.contact_shadow

    def _upload(self, array: Array, dtype: Any, element: Any) -> Any:
        import warp as wp

        array = np.ascontiguousarray(array, dtype)
        return wp.array(array, dtype=element, device=self.device, copy=False)

    @cached_property
    def radius(self) -> float:
        """Distance of the farthest vertex from the origin."""
        return float(np.sqrt((self.asset.vertices.astype(np.float64) ** 2).sum(axis=1).max()))

    @property
    def layer_count(self) -> int:
        """How many surfaces behind each other a picture looks at."""
        return 1 if self.asset.alpha_mode == "OPAQUE" else MAX_LAYERS

    def rasterize(self, clip_from_world: Array, width: int, height: int) -> Any:
        """Face ids, nearest layer first: a warp array (K, H, W) int32, valid until the next call.

        K is 1 for an opaque asset, else as many as have anything to show, at most MAX_LAYERS.
        """
        import warp as wp

        from onelook.kernels import launch
        from onelook.render import raster_kernels as kernels

        if (width, height) not in self._layers:
            self._layers = {(width, height): self._make_layers(width, height)}
        buffers, face_ids = self._layers[width, height]
        matrix = wp.mat44(clip_from_world)
        launch(
            kernels.project_points,
            len(self.asset.vertices),
            [self.arrays.positions, matrix, width, height, self.screen],
            self.device,
        )
        cull = self.asset.is_closed and self.layer_count == 1
        buffers[0].draw(self.screen, self.arrays.faces, cull)
        used = 1
        while used < len(buffers) and (buffers[used - 1].face_ids.numpy() >= 0).any():
            buffers[used].draw(self.screen, self.arrays.faces, cull, buffers[used - 1])
            used += 1
        return face_ids[:used]

    def _make_layers(self, width: int, height: int) -> tuple[list[Any], Any]:
        import warp as wp

        from onelook.render.raster_buffers import make_buffers

        shape = (self.layer_count, height, width)
        face_ids = wp.empty(shape, dtype=wp.int32, device=self.device)
        num_faces = len(self.asset.faces)
        buffers = [
            make_buffers(num_faces, width, height, self.device, face_ids[layer])
            for layer in range(self.layer_count)
        ]
        return buffers, face_ids


def _surface_texture(textures: Textures) -> Array | None:
    """Metallic, roughness and the normal's x and y in one (T, T, 4) uint8 image; None if unused.

    A map that is missing is filled with its constant: one texture means one fetch per sample.
    """
    if textures.metallic_roughness is None and textures.normal is None:
        return None
    size = textures.base_color.shape[0]
    image = np.empty((size, size, 4), np.uint8)
    constant = [round(255 * textures.metallic_factor), round(255 * textures.roughness_factor)]
    image[..., :2] = (
        constant if textures.metallic_roughness is None else textures.metallic_roughness
    )
    image[..., 2:] = 128 if textures.normal is None else textures.normal[..., :2]
    return image
