"""How good an asset looks and whether its files are right, found out without the code that made it.

Texels are counted one by one. The truth of a picture is the painted field itself, asked at the
points of the full surface that its pixels see.

N vertices, M faces, P points, S pixels or texels along a side.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mesh_quality import Mesh

from onelook.asset.asset import Asset
from onelook.render.camera import Camera, orbit_camera, turning_distance
from onelook.render.rasterize import rasterize
from onelook.render.scene import RenderScene
from onelook.render.shade import render
from onelook.surface import Appearance

Array = np.ndarray

ROOT = Path(__file__).parent.parent
FOV_DEGREES = 30.0
SUPERSAMPLE = 2
CANDIDATES_AT_ONCE = 1 << 22  # texels looked at together: bounds the memory


@dataclass(frozen=True)
class Layout:
    """overlapped: texel centres inside two faces or more; area: of the unit square; stretch: L2.

    The stretch is that of Sander, Snyder, Gortler and Hoppe, "Texture Mapping Progressive Meshes"
    (2001), over the whole mesh, divided by that of a layout without distortion: 1 is perfect.
    """

    overlapped: int
    area: float
    stretch: float


def judge_layout(vertices: Array, uvs: Array, faces: Array, texture_size: int) -> Layout:
    """vertices (K, 3), uvs (K, 2) 0..1, faces (M, 3); centres on an edge are in neither face."""
    flat = uvs[faces].astype(np.float64)  # (M, 3, 2)
    d1, d2 = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    twice = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
    area = float(np.abs(twice).sum() / 2)
    corners = vertices[faces].astype(np.float64)
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area_3d = np.linalg.norm(np.cross(e1, e2), axis=1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        along_s = (e1 * d2[:, 1:] - e2 * d1[:, 1:]) / twice[:, None]
        along_t = (e2 * d1[:, :1] - e1 * d2[:, :1]) / twice[:, None]
        squared = ((along_s**2).sum(1) + (along_t**2).sum(1)) / 2  # L2 of each face, squared
        parts = np.where(area_3d > 0, squared * area_3d, 0.0)
    stretch = np.sqrt(parts.sum() / area_3d.sum()) * np.sqrt(area / area_3d.sum())
    hits = _centre_hits(flat * texture_size, texture_size)
    return Layout(int((hits > 1).sum()), area, float(stretch))


def _centre_hits(corners: Array, size: int) -> Array:
    """How many triangles (M, 3, 2), in texels, hold each texel centre: (size * size,) uint8."""
    hits = np.zeros(size * size, np.uint8)
    low = np.ceil(corners.min(1) - 0.5).clip(0, size).astype(np.int64)
    high = np.floor(corners.max(1) - 0.5).clip(-1, size - 1).astype(np.int64)
    spans = (high - low + 1).clip(0)  # (M, 2) columns and rows of candidates
    counts = spans.prod(1)
    ends = np.cumsum(counts)
    first = 0
    while first < len(corners):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + CANDIDATES_AT_ONCE)))
        face = np.repeat(np.arange(first, last), counts[first:last])
        begins = ends[first:last] - counts[first:last] - before
        place = np.arange(len(face)) - np.repeat(begins, counts[first:last])
        column = low[face, 0] + place % spans[face, 0]
        row = low[face, 1] + place // spans[face, 0]
        inside = _strictly_inside(corners[face], column + 0.5, row + 0.5)
        np.add.at(hits, (row * size + column)[inside], 1)
        first = last
    return hits


def _strictly_inside(corners: Array, x: Array, y: Array) -> Array:
    """Whether each point is inside its triangle (P, 3, 2) by 1e-4 texels at least."""
    inside = np.ones(len(x), bool)
    turn = np.zeros(len(x))
    for k in range(3):
        ax, ay = corners[:, k, 0], corners[:, k, 1]
        bx, by = corners[:, (k + 1) % 3, 0], corners[:, (k + 1) % 3, 1]
        length = np.hypot(bx - ax, by - ay)
        side = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / np.maximum(length, 1e-12)
        turn = side if k == 0 else turn
        inside &= (np.abs(side) > 1e-4) & (np.sign(side) == np.sign(turn))
    return inside


@dataclass(frozen=True)
class Likeness:
    """decibels over all compared pixels; worst of a single view; left_out: percent, at outlines."""

    decibels: float
    worst: float
    left_out: float


def compare_with_field(
    asset: Asset, truth: Mesh, field: Appearance, views: int, size: int, device: str
) -> Likeness:
    """Unlit pictures of the asset against the field on the full surface, from all around.

    The truth has SUPERSAMPLE^2 points of the full surface per pixel, their colours averaged as
    light, as the renderer does it. Compared are pixels that the object covers wholly in both;
    outlines against the background, `left_out`, are not. Outlines of one part of the object before
    another are compared like everything else.
    """
    scene = RenderScene(asset, device)
    errors, counts, covered = [], [], 0
    for camera in cameras_all_around(truth[0], views):
        picture = render(scene, camera, size, size, unlit=True, supersample=SUPERSAMPLE)
        expected, weight = _true_picture(truth, field, camera, size, device)
        both = (weight == 1) & (picture[..., 3] == 255)
        covered += int(((weight > 0) | (picture[..., 3] > 0)).sum())
        difference = picture[..., :3][both].astype(np.float64) - 255 * expected[both]
        errors.append((difference**2).sum() / 3)
        counts.append(both.sum())
    views_mean = np.array(errors) / np.array(counts)
    return Likeness(
        decibels=_decibels(sum(errors) / sum(counts)),
        worst=_decibels(views_mean.max()),
        left_out=float(100 * (1 - sum(counts) / covered)),
    )


def cameras_all_around(vertices: Array, views: int) -> list[Camera]:
    """Cameras on a golden spiral, all of the object in each picture."""
    cameras = []
    for i in range(views):
        elevation = np.degrees(np.arcsin(1 - (2 * i + 1) / views))
        distance = turning_distance(vertices, elevation, FOV_DEGREES)
        cameras.append(orbit_camera(i * 137.508 % 360, elevation, distance, FOV_DEGREES))
    return cameras


def seen_points(mesh: Mesh, camera: Camera, size: int, device: str) -> tuple[Array, Array, Array]:
    """Which point of a mesh each pixel centre sees: mask (S, S), points (P, 3), face (P,)."""
    vertices, faces = mesh
    matrix = camera.clip_from_world(1.0)
    clip = vertices.astype(np.float32) @ matrix[:, :3].T + matrix[:, 3]
    raster = rasterize(clip, faces, size, size, cull=True, device=device)
    mask = raster.face_ids >= 0
    face, weights = raster.face_ids[mask], raster.barycentrics[mask]
    weights = np.column_stack([weights, 1 - weights.sum(1)])  # (P, 3)
    return mask, np.einsum("pk,pkc->pc", weights, vertices[faces[face]]), face


def _true_picture(
    truth: Mesh, field: Appearance, camera: Camera, size: int, device: str
) -> tuple[Array, Array]:
    """Colours (S, S, 3) 0..1, sRGB-encoded, and the share of each pixel that is covered (S, S)."""
    mask, points, _ = seen_points(truth, camera, SUPERSAMPLE * size, device)
    light = np.zeros((*mask.shape, 3))
    light[mask] = to_linear(field.sample(points, points).base_color)
    blocks = (size, SUPERSAMPLE, size, SUPERSAMPLE)
    weight = mask.reshape(blocks).mean((1, 3))
    mean = light.reshape(*blocks, 3).mean((1, 3)) / np.maximum(weight, 1e-9)[..., None]
    return to_srgb(mean), weight


def to_linear(color: Array) -> Array:
    """sRGB-encoded -> linear, IEC 61966-2-1."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Array) -> Array:
    """Linear -> sRGB-encoded, IEC 61966-2-1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _decibels(mean_square: float) -> float:
    return float(10 * np.log10(255**2 / max(mean_square, 1e-9)))


def validator_messages(path: Path) -> int | None:
    """How much the Khronos validator has to say of a GLB; None where it is not installed."""
    node = shutil.which("node")
    if not node or not (ROOT / "node_modules/gltf-validator").is_dir():
        return None
    command = [node, str(ROOT / "tests/helpers/validate_gltf.mjs"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return len(json.loads(done.stdout)[str(path)]["messages"])


@dataclass(frozen=True)
class Film:
    """frames; seam: change from the last frame to the first, by the median change of two in turn.

    plays: H.264, yuv420p and the index before the pictures, which is what browsers ask for.
    """

    frames: int
    seam: float
    plays: bool


def judge_film(path: Path) -> Film:
    """Decode an MP4 and look at how it goes round."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        is_h264 = (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = [f.to_ndarray(format="gray").astype(np.float32) for f in container.decode(stream)]
    changes = [
        float(np.abs(a - b).mean()) for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)
    ]
    content = path.read_bytes()
    index_first = 0 < content.find(b"moov") < content.find(b"mdat")
    return Film(len(frames), changes[-1] / float(np.median(changes[:-1])), is_h264 and index_first)
