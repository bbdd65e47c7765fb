"""Pictures of an asset: rasterise, shade, supersample.

H rows, W columns, S samples per pixel and axis.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np

from onelook.asset.asset import Asset
from onelook.render.background import STUDIO, Background, contact_shadow
from onelook.render.camera import Camera
from onelook.render.environment import Environment, studio
from onelook.render.scene import RenderScene

Array = np.ndarray
Color = tuple[int, int, int]


def render(
    asset: Asset | RenderScene,
    camera: Camera,
    width: int,
    height: int,
    *,
    unlit: bool = False,
    supersample: int = 2,
    background: Background | Color | None = None,
    environment: Environment | None = None,
    device: str | None = None,
) -> Array:
    """A picture of `asset` (H, W, 4) uint8: sRGB, straight alpha, row 0 at the top.

    unlit: the base colours as they are, without light or tone mapping. supersample: S x S samples
    per pixel. background: None is transparent; three sRGB bytes, or a Background. environment:
    the light, by default the studio; it stays with the camera while the camera goes round.
    Pass a RenderScene in place of the asset when there is more than one picture to take; `device`
    is then ignored. The same arguments give the same bytes, however many threads there are.
    Raises ValueError for sizes out of range.
    """
    import warp as wp

    from onelook.kernels import launch
    from onelook.render import shade_kernels as kernels
    from onelook.render.texture import encode_table

    if not (width > 0 and height > 0 and supersample > 0):
        raise ValueError(
            f"width, height and supersample must be positive, got {width}, {height}, {supersample}"
        )
    if max(width, height) * supersample > 16384:
        raise ValueError(
            f"width and height times supersample must be at most 16384, got {width} x {height} "
            f"with {supersample} samples a side"
        )
    scene = asset if isinstance(asset, RenderScene) else RenderScene(asset, device)
    clip_from_world = camera.clip_from_world(width / height)
    layers = scene.rasterize(clip_from_world, width * supersample, height * supersample)
    image = wp.empty((height, width), dtype=wp.uint32, device=scene.device)
    inputs = [
        scene.arrays,
        _view(camera, width / height),
        upload_environment(environment or studio(), scene.device),
        _backdrop(background, scene),
        scene.screen,
        layers,
        supersample,
        unlit,
        encode_table(scene.device),
        image,
    ]
    launch(kernels.shade_pixels, width * height, inputs, scene.device)
    return image.numpy().view(np.uint8).reshape(height, width, 4)


def warmup(device: str | None = None) -> None:
    """Compile every kernel of the room, or load it from the cache, by taking a tiny picture."""
    from onelook.asset.asset import Textures
    from onelook.render.camera import orthographic_camera
    from onelook.render.rasterize import rasterize

    corners = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0, 0.5, 0]], np.float32)
    asset = Asset(
        vertices=corners,
        normals=np.tile(np.array([0, 0, 1], np.float32), (3, 1)),
        uvs=np.zeros((3, 2), np.float32),
        faces=np.array([[0, 1, 2]], np.int32),
        textures=Textures(np.full((8, 8, 4), 128, np.uint8)),
        is_closed=False,
    )
    render(asset, orthographic_camera(), 8, 8, background=STUDIO, device=device)
    rasterize(
        np.pad(corners, ((0, 0), (0, 1)), constant_values=1), asset.faces, 8, 8, device=device
    )


@lru_cache(maxsize=8)
def upload_environment(environment: Environment, device: str) -> Any:
    """An `Environment` as a `light_kernels.Light` on a device."""
    import warp as wp

    from onelook.render.light_kernels import Light

    sides = [len(level) for level in environment.levels]
    texels = np.concatenate([level.reshape(-1, 3) for level in environment.levels])
    offsets = np.concatenate([[0], np.cumsum(np.square(sides))])[:-1]
    light = Light()
    light.irradiance = wp.array(environment.irradiance, dtype=wp.vec3, device=device)
    light.texels = wp.array(texels, dtype=wp.vec3, device=device)
    light.offsets = wp.array(offsets.astype(np.int32), dtype=wp.int32, device=device)
    light.sizes = wp.array(np.array(sides, np.int32) - 2, dtype=wp.int32, device=device)
    return light


def _view(camera: Camera, aspect: float) -> Any:
    """The camera as the shading kernel wants it: axes and place in studio space."""
    import warp as wp

    from onelook.render.shade_kernels import View

    rotation = camera.world_to_camera[:3, :3].astype(np.float64)
    eye = -rotation.T @ camera.world_to_camera[:3, 3]
    heading = np.hypot(rotation[0, 0], rotation[0, 2])  # of the camera's right, seen from above
    cosine, sine = (
        (rotation[0, 0] / heading, -rotation[0, 2] / heading) if heading > 1e-6 else (1, 0)
    )
    to_studio = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    right, up, backward = (to_studio @ axis for axis in rotation)
    view = View()
    view.to_studio = wp.mat33(to_studio.astype(np.float32))
    view.across = wp.vec3(right * camera.half_extent * aspect)
    view.up = wp.vec3(up * camera.half_extent)
    view.backward = wp.vec3(backward)
    view.eye = wp.vec3(to_studio @ eye)
    view.is_pinhole = camera.fov_degrees is not None
    return view


def _backdrop(background: Background | Color | None, scene: RenderScene) -> Any:
    import warp as wp

    from onelook.render.shade_kernels import Backdrop

    backdrop = Backdrop()
    backdrop.is_transparent = background is None
    backdrop.shadow = _no_shadow(scene.device)
    if background is None:
        return backdrop
    if not isinstance(background, Background):
        background = Background.plain(background)
    backdrop.top, backdrop.bottom = (
        wp.vec3(background.linear_top),
        wp.vec3(background.linear_bottom),
    )
    if background.shadow_strength > 0:
        shadow = contact_shadow(scene)
        backdrop.shadow, backdrop.reach, backdrop.ground = shadow
        backdrop.strength = background.shadow_strength
    return backdrop


@cache
def _no_shadow(device: str) -> Any:
    import warp as wp

    return wp.zeros((1, 1), dtype=wp.float32, device=device)
