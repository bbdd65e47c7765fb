"""Baked textures against the formula that coloured the surface."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from helpers.knots import trefoil
from helpers.solids import cube, sphere

from onelook.asset import bake as bake_module
from onelook.asset.asset import Textures
from onelook.asset.bake import bake
from onelook.asset.normals import vertex_normals
from onelook.asset.tangents import vertex_tangents
from onelook.asset.unwrap import Unwrapped, unwrap
from onelook.asset.uv_raster import texel_faces
from onelook.surface import Material, Surface

Array = np.ndarray
SIZE = 512


@dataclass
class Field:
    """A smooth colour for every point of space; remembers what it was asked."""

    alpha: float = 1.0
    varies: bool = False
    broken_share: float = 0.0
    asked: list[tuple[Array, Array]] = field(default_factory=list)

    def sample(self, points: Array, normals: Array) -> Material:
        self.asked.append((points, normals))
        metallic = np.clip(points[:, 0] + 0.5, 0, 1) if self.varies else np.full(len(points), 0.25)
        color = _color(points)
        color[: int(self.broken_share * len(points))] = np.nan
        return Material(
            base_color=color,
            alpha=np.full(len(points), self.alpha, np.float32),
            metallic=metallic.astype(np.float32),
            roughness=np.full(len(points), 0.5, np.float32),
        )


def _color(points: Array) -> Array:
    waves = np.sin(points * 9 + points[:, [1, 2, 0]] * 6)
    return (0.55 + 0.3 * waves).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A mesh with UVs."""

    vertices: Array
    faces: Array
    unwrapped: Unwrapped
    normals: Array

    @staticmethod
    def of(mesh: tuple[Array, Array], size: int = SIZE) -> Case:
        unwrapped = unwrap(*mesh, size)
        index = unwrapped.vertices_index
        return Case(mesh[0], mesh[1], unwrapped, vertex_normals(*mesh)[index])

    def bake(self, surface: Surface, size: int = SIZE, **options) -> Textures:
        u = self.unwrapped
        vertices = self.vertices[u.vertices_index]
        return bake(vertices, self.normals, u.uvs, u.faces, surface, size, **options)

    def itself(self, appearance: Field | None = None) -> Surface:
        return Surface(self.vertices, self.faces, appearance or Field())

    def random_points(self, count: int = 100_000) -> tuple[Array, Array]:
        """Points on the surface, evenly by area, and their UVs."""
        rng = np.random.default_rng(1)
        corners = self.vertices[self.faces].astype(np.float64)
        area = np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        )
        face = rng.choice(len(area), count, p=area / area.sum())
        weights = rng.dirichlet([1, 1, 1], count)
        uvs = self.unwrapped.uvs[self.unwrapped.faces[face]]
        return (
            np.einsum("pk,pkc->pc", weights, corners[face]),
            np.einsum("pk,pkc->pc", weights, uvs),
        )


@pytest.fixture(scope="module")
def knot() -> Case:
    return Case.of(trefoil(240, 40))


@pytest.fixture(scope="module")
def fine() -> tuple[Array, Array]:
    return trefoil(480, 80)


def test_texture_shows_the_field_at_every_point(knot):
    texture = knot.bake(knot.itself(), project=False).base_color
    error = _errors(knot, texture)
    assert _psnr(error) > 48
    assert np.percentile(np.abs(error), 99.99) < 6  # of 255: no speckles


def test_projection_reads_the_full_surface(knot, fine):
    appearance = Field()
    texture = knot.bake(Surface(*fine, appearance)).base_color
    assert _psnr(_errors(knot, texture)) > 40
    asked = np.concatenate([points for points, _ in appearance.asked])
    normals = np.concatenate([normals for _, normals in appearance.asked])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    from onelook.closest_point import ClosestPoint

    assert ClosestPoint(*fine, "cpu").query(asked).distance.max() < 1e-5


def test_projection_onto_itself_changes_nothing_to_speak_of(knot):
    straight = knot.bake(knot.itself(), project=False).base_color.astype(int)
    projected = knot.bake(knot.itself()).base_color.astype(int)
    assert np.abs(straight - projected).max() <= 1


def test_a_patch_far_from_the_surface_takes_its_nearest_colour():
    body, holed = sphere(24), sphere(24)
    cap = body[0][body[1]].mean(axis=1)[:, 1] > 0.44  # a hole that cleaning would have closed
    case = Case.of(body, 256)
    appearance = Field()
    texture = case.bake(Surface(holed[0], holed[1][~cap], appearance), 256).base_color
    asked = np.concatenate([points for points, _ in appearance.asked])
    assert asked[:, 1].max() < 0.46  # nothing was asked for off the surface
    points, uvs = case.random_points(20_000)
    patch = points[:, 1] > 0.47
    assert patch.sum() > 100
    rim = points[(points[:, 1] > 0.44) & (points[:, 1] < 0.46)]
    error = _bilinear(texture, uvs[patch])[:, None, :3] - 255 * _color(rim)[None]
    assert np.abs(error).max(axis=2).min(axis=1).max() < 16  # each is a colour of the rim


def test_no_texel_is_black_or_foreign(knot):
    texture = knot.bake(knot.itself(), project=False).base_color
    assert texture[..., :3].min() > 255 * 0.25 - 2
    assert (texture[..., 3] == 255).all()


def test_no_seam_shows_at_mip_level_3(knot):
    texture = knot.bake(knot.itself(), project=False).base_color.astype(np.float32)
    for _ in range(3):
        texture = cv2.resize(texture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert _psnr(_errors(knot, texture)) > 28  # 64 x 64 texels for the whole knot


def test_gutter_continues_the_nearest_chart(knot):
    texture = knot.bake(knot.itself(), project=False).base_color.astype(int)
    u = knot.unwrapped
    chart = texel_faces(u.uvs, u.faces, SIZE)
    covered = chart >= 0
    distance, nearest = _nearest_covered(covered)
    gutter = ~covered & (distance > 2)  # nearer ones are touched and sampled themselves
    difference = np.abs(texture[gutter] - texture.reshape(-1, 4)[nearest[gutter]])
    assert np.percentile(difference, 95) <= 12


def test_four_samples_average_a_fine_pattern(knot):
    @dataclass
    class Stripes:
        def sample(self, points: Array, normals: Array) -> Material:
            on = (np.floor(points[:, 1] * 150) % 2).astype(np.float32)
            return Material.matte(np.repeat(on[:, None], 3, axis=1))

    one = knot.bake(knot.itself(Stripes()), project=False).base_color[..., 0]
    four = knot.bake(knot.itself(Stripes()), project=False, samples=4).base_color[..., 0]
    assert set(np.unique(one)) == {0, 255}
    # light is averaged, not its encoding: a quarter of it is 137 of 255, not 64
    assert set(np.unique(four)) == {0, 137, 188, 225, 255}
    with pytest.raises(ValueError, match="1 or 4"):
        knot.bake(knot.itself(), samples=2)


def test_constant_metal_and_roughness_become_factors(knot):
    textures = knot.bake(knot.itself(), project=False)
    assert textures.metallic_roughness is None
    assert textures.metallic_factor == pytest.approx(0.25)
    assert textures.roughness_factor == pytest.approx(0.5)
    assert textures.normal is None


def test_varying_metal_becomes_a_texture(knot):
    textures = knot.bake(knot.itself(Field(varies=True)), project=False)
    assert (textures.metallic_factor, textures.roughness_factor) == (1.0, 1.0)
    points, uvs = knot.random_points(20_000)
    found = _bilinear(textures.metallic_roughness, uvs)
    assert np.abs(found[:, 0] - 255 * np.clip(points[:, 0] + 0.5, 0, 1)).mean() < 1
    assert np.abs(found[:, 1] - 127.5).max() <= 1


def test_answers_that_are_no_numbers_are_filled_in(knot):
    textures = knot.bake(knot.itself(Field(broken_share=0.02)), project=False)
    assert textures.base_color[..., :3].min() > 255 * 0.25 - 2
    assert _psnr(_errors(knot, textures.base_color)) > 20


def test_alpha_is_kept(knot):
    texture = knot.bake(knot.itself(Field(alpha=0.4)), project=False).base_color
    assert (texture[..., 3] == 102).all()


def test_normal_map_brings_back_the_full_surface(fine):
    coarse = Case.of(trefoil(120, 20), 1024)
    textures = coarse.bake(Surface(*fine, Field()), 1024, normal_map=True)
    u = coarse.unwrapped
    vertices = coarse.vertices[u.vertices_index]
    tangents = vertex_tangents(vertices, coarse.normals, u.uvs, u.faces)
    points, uvs, normal, tangent = _shaded_points(coarse, tangents)
    local = _bilinear(textures.normal, uvs) / 127.5 - 1
    bitangent = np.cross(normal, tangent[:, :3]) * tangent[:, 3:]
    mapped = local[:, :1] * tangent[:, :3] + local[:, 1:2] * bitangent + local[:, 2:] * normal
    truth = _true_normals(fine, points)
    assert _mean_angle(mapped, truth) < 0.4 * _mean_angle(normal, truth)


def test_rows_at_once_and_threads_do_not_change_a_byte(knot, fine, monkeypatch):
    surface = Surface(*fine, Field(varies=True))
    expected = knot.bake(surface, normal_map=True)
    monkeypatch.setattr(bake_module, "TEXELS_AT_ONCE", 30_000)
    monkeypatch.setattr("onelook.kernels.thread_count", lambda: 5)
    told = []
    found = knot.bake(surface, normal_map=True, on_progress=told.append)
    for name in ("base_color", "metallic_roughness", "normal"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert told == sorted(told) and len(told) > 5 and 0 < told[0] < told[-1] <= 1


@pytest.mark.parametrize("size", [1, 7, 100])
def test_odd_texture_sizes_work(size):
    case = Case.of(cube(), size)
    texture = case.bake(case.itself(), size, project=False).base_color
    assert texture.shape == (size, size, 4)
    assert texture[..., :3].min() > 255 * 0.25 - 2


@pytest.mark.gpu
def test_cuda_bakes_the_same_picture(knot, fine):
    warp = pytest.importorskip("warp")
    if not warp.is_cuda_available():
        pytest.skip("no CUDA device")
    surface = Surface(*fine, Field())
    on_cpu, on_gpu = (
        knot.bake(surface, device=device).base_color.astype(int) for device in ("cpu", "cuda:0")
    )
    assert (np.abs(on_cpu - on_gpu) > 1).mean() < 1e-4


def _bilinear(texture: Array, uvs: Array) -> Array:
    """(T, T, C) looked up as a viewer does: -> (P, C)."""
    size = len(texture)
    at = uvs * size - 0.5
    low = np.floor(at).astype(int)
    share = at - low
    total = 0.0
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dx - share[:, 0]) * np.abs(1 - dy - share[:, 1])
            x, y = (np.clip(low[:, k] + (dx, dy)[k], 0, size - 1) for k in (0, 1))
            total = total + weight[:, None] * texture[y, x].astype(np.float64)
    return total


def _errors(case: Case, texture: Array) -> Array:
    points, uvs = case.random_points()
    return _bilinear(texture, uvs)[:, :3] - 255 * _color(points)


def _psnr(error: Array) -> float:
    return float(10 * np.log10(255**2 / np.square(error).mean()))


def _nearest_covered(covered: Array) -> tuple[Array, Array]:
    from scipy.ndimage import distance_transform_edt

    distance, (rows, columns) = distance_transform_edt(~covered, return_indices=True)
    return distance, rows * len(covered) + columns


def _shaded_points(case: Case, tangents: Array) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(2)
    u = case.unwrapped
    corners = u.faces[rng.integers(0, len(u.faces), 20_000)]
    weights = rng.dirichlet([1, 1, 1], len(corners))
    attributes = (case.vertices[u.vertices_index], u.uvs, case.normals, tangents)
    return tuple(np.einsum("pk,pkc->pc", weights, a[corners]) for a in attributes)


def _true_normals(mesh: tuple[Array, Array], points: Array) -> Array:
    from onelook.closest_point import ClosestPoint

    closest = ClosestPoint(*mesh, "cpu")
    return closest.interpolate(vertex_normals(*mesh), closest.query(points))


def _mean_angle(a: Array, b: Array) -> float:
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())
