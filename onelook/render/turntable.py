"""Films and sheets: the object once round, eight views, one preview.

The object appears to turn counter-clockwise seen from above, as on a potter's wheel: what faces the
viewer moves to the right. The camera therefore runs clockwise, towards -X first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onelook.asset.asset import Asset
from onelook.render.background import STUDIO, Background
from onelook.render.camera import Camera, orbit_camera, turning_distance
from onelook.render.scene import RenderScene
from onelook.render.shade import Color, render
from onelook.report import Report

Array = np.ndarray
FOV_DEGREES = 30.0
ELEVATION_DEGREES = 12.0


def turntable_cameras(
    scene: RenderScene,
    turns_degrees: Sequence[float],
    elevation_degrees: float = ELEVATION_DEGREES,
) -> list[Camera]:
    """Cameras that see the object turned counter-clockwise from above by these angles.

    They share one distance, the smallest at which no part of the object ever leaves a square
    picture.
    """
    distance = turning_distance(scene.asset.vertices, elevation_degrees, FOV_DEGREES)
    return [
        orbit_camera(-turn, elevation_degrees, distance, FOV_DEGREES, scene.radius)
        for turn in turns_degrees
    ]


def turntable_frames(
    asset: Asset | RenderScene,
    *,
    num_frames: int = 120,
    size: int = 512,
    elevation_degrees: float = ELEVATION_DEGREES,
    supersample: int = 2,
    background: Background | Color | None = STUDIO,
    device: str | None = None,
    report: Report | None = None,
) -> Iterator[Array]:
    """Frames (size, size, 4) uint8 of one full turn; a seamless loop that starts at the front.

    Frame i shows the object turned by 360 * i / num_frames degrees counter-clockwise seen from
    above, so the frame after the last would be the first again. background: by default the studio
    with a contact shadow; None is transparent. Raises ValueError for fewer than one frame.
    """
    if num_frames < 1:
        raise ValueError(f"a turntable needs at least one frame, got {num_frames}")
    scene = asset if isinstance(asset, RenderScene) else RenderScene(asset, device)
    turns = [360 * i / num_frames for i in range(num_frames)]
    for i, camera in enumerate(turntable_cameras(scene, turns, elevation_degrees)):
        yield render(
            scene,
            camera,
            size,
            size,
            supersample=supersample,
            background=background,
        )
        if report:
            report.advance((i + 1) / num_frames)


def contact_sheet(
    asset: Asset | RenderScene,
    size: int = 256,
    *,
    unlit: bool = False,
    background: Background | Color | None = STUDIO,
    device: str | None = None,
) -> Array:
    """Eight views 45 degrees apart in two rows of four, (2 * size, 4 * size, 4) uint8.

    The first is the front; the object turns as in `turntable_frames`. background: by default the
    studio; None is transparent.
    """
    scene = asset if isinstance(asset, RenderScene) else RenderScene(asset, device)
    views = [
        render(
            scene,
            camera,
            size,
            size,
            unlit=unlit,
            background=background,
        )
        for camera in turntable_cameras(scene, range(0, 360, 45))
    ]
    return np.concatenate([np.concatenate(views[i : i + 4], axis=1) for i in (0, 4)])


def preview(asset: Asset | RenderScene, size: int = 512, *, device: str | None = None) -> Array:
    """One three-quarter view on a transparent background, (size, size, 4) uint8."""
    scene = asset if isinstance(asset, RenderScene) else RenderScene(asset, device)
    (camera,) = turntable_cameras(scene, [30], 20)
    return render(scene, camera, size, size, supersample=3)
