"""The plain way from a mesh to textures, as research code goes it.

Quadric decimation at the library's default, xatlas on the whole mesh at once, pictures of the full
surface from many sides, and textures from those pictures: by averaging them into texels, or, as
TRELLIS does by default, by 2500 steps of gradient descent (its postprocessing_utils.py). The means
of seeing are this project's rasteriser, which is quick; nothing else is shared.

N vertices, M faces, S texels or pixels along a side, V views.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
import trimesh
import xatlas
from asset_quality import cameras_all_around, seen_points
from mesh_quality import Mesh

from onelook.asset.asset import Asset, Textures
from onelook.asset.normals import vertex_normals
from onelook.render.camera import Camera
from onelook.surface import Appearance

Array = np.ndarray

DESCENT_STEPS = 2500
TELEA_RADIUS = 3


@dataclass
class PlainResult:
    """Seconds per step and the asset with the averaged texture."""

    seconds: dict[str, float] = field(default_factory=dict)
    asset: Asset | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class View:
    """A picture of the full surface and where each of its pixels lies in the texture.

    mask (S, S) bool: pixels that see both meshes; colors (P, 3) 0..1 and uvs (P, 2) of those.
    """

    mask: Array
    colors: Array
    uvs: Array


def plain_recipe(
    mesh: Mesh,
    appearance: Appearance,
    *,
    budget: int,
    texture_size: int,
    views: int,
    view_size: int,
    timed_steps: int,
) -> PlainResult:
    """Simplify, unwrap and texture a sound mesh; of gradient descent `timed_steps` steps are run.

    "gradient descent" in the seconds is what all DESCENT_STEPS would take at that rate; the key is
    missing where torch is not installed or timed_steps is 0.
    """
    result = PlainResult()
    with result.step("simplify"):
        whole = trimesh.Trimesh(*mesh, process=False)
        simple = whole.simplify_quadric_decimation(face_count=budget)
    with result.step("unwrap"):
        index, faces, uvs = xatlas.parametrize(
            simple.vertices.astype(np.float32), simple.faces.astype(np.uint32)
        )
    vertices = simple.vertices[index].astype(np.float32)
    faces = faces.astype(np.int32)
    with result.step("pictures"):
        seen = _pictures(mesh, (vertices, faces), uvs, appearance, views, view_size)
    with result.step("average"):
        texture, count = _averaged(seen, texture_size)
    with result.step("fill"):
        texture = cv2.inpaint(
            texture, (count == 0).astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA
        )
    if seconds := _descent_seconds(seen, texture_size, timed_steps):
        result.seconds["gradient descent"] = seconds * DESCENT_STEPS
    result.asset = Asset(
        vertices=vertices,
        normals=vertex_normals(simple.vertices, simple.faces)[index].astype(np.float32),
        uvs=uvs,
        faces=faces,
        textures=Textures(np.dstack([texture, np.full_like(texture[..., :1], 255)])),
        is_closed=False,
    )
    return result


def _pictures(
    mesh: Mesh, simple: Mesh, uvs: Array, appearance: Appearance, views: int, size: int
) -> list[View]:
    seen = []
    for camera in cameras_all_around(mesh[0], views):
        mask, points, _ = seen_points(mesh, camera, size, "cpu")
        colors = np.zeros((size, size, 3), np.float32)
        colors[mask] = appearance.sample(points, points).base_color
        there, uv = _seen_uvs(simple, uvs, camera, size)
        both = mask & there
        seen.append(View(both, colors[both], uv[both[there]]))
    return seen


def _seen_uvs(simple: Mesh, uvs: Array, camera: Camera, size: int) -> tuple[Array, Array]:
    """mask (S, S) and the UVs (P, 2) of the pixels that see the simplified mesh."""
    mask, points, face = seen_points(simple, camera, size, "cpu")
    corners = simple[0][simple[1][face]]
    weights = trimesh.triangles.points_to_barycentric(corners, points)
    return mask, np.einsum("pk,pkc->pc", weights, uvs[simple[1][face]]).astype(np.float32)


def _averaged(seen: list[View], size: int) -> tuple[Array, Array]:
    """The mean of what the views see at each texel (S, S, 3) uint8, and how many (S, S)."""
    total, count = np.zeros((3, size * size)), np.zeros(size * size)
    for view in seen:
        column, row = (view.uvs.T * size).astype(np.int64).clip(0, size - 1)
        texel = row * size + column
        count += np.bincount(texel, minlength=size * size)
        for channel in range(3):
            total[channel] += np.bincount(texel, view.colors[:, channel], size * size)
    mean = (total / np.maximum(count, 1)).T.reshape(size, size, 3)
    return np.rint(255 * mean.clip(0, 1)).astype(np.uint8), count.reshape(size, size)


def _descent_seconds(seen: list[View], size: int, steps: int) -> float | None:
    """Seconds of one step, the best of `steps`; None without torch and for no steps."""
    if not steps:
        return None
    try:
        import torch
    except ImportError:
        return None
    texture = torch.zeros(1, 3, size, size, requires_grad=True)
    optimizer = torch.optim.Adam([texture], lr=1e-2, betas=(0.5, 0.9))
    best = float("inf")
    for step in range(steps):
        view = seen[step % len(seen)]
        grid = torch.from_numpy(2 * view.uvs - 1)[None, None]  # (1, 1, P, 2)
        target = torch.from_numpy(view.colors)
        start = time.perf_counter()
        looked_up = torch.nn.functional.grid_sample(texture, grid, align_corners=False)
        roughness = texture.diff(dim=2).abs().mean() + texture.diff(dim=3).abs().mean()
        loss = (looked_up[0, :, 0].T - target).abs().mean() + 0.01 * roughness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = min(best, time.perf_counter() - start)
    return best
