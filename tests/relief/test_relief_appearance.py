import numpy as np
import pytest
from helpers.drawing import cut_out, disc, pixel_centers, wheel

from onelook.report import Report
from onelook.surface import Surface
from relief_backend.appearance import extend_colors
from relief_backend.pipeline import ReliefBackend


def smooth_colors(size: int) -> np.ndarray:
    columns, rows = pixel_centers(size)
    waves = [np.sin(columns / 20), np.cos(rows / 14), np.sin((columns + rows) / 30)]
    return 0.5 + 0.35 * np.stack(waves, axis=-1)


def on_green(alpha: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colours of the subject, with a shrill green wherever it is not opaque."""
    return np.where(alpha[..., None] > 0.3, colors, [0.0, 1.0, 0.0])


def relief(alpha: np.ndarray, colors: np.ndarray) -> Surface:
    return ReliefBackend().run(cut_out(alpha, colors), Report())


def points_at(surface: Surface, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    frame = surface.appearance.frame
    x = (columns - frame.center_column) / frame.scale
    y = (frame.center_row - rows) / frame.scale
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.float32)


def facing(count: int, z: float) -> np.ndarray:
    return np.tile(np.array([np.sqrt(1 - z * z), 0, z], np.float32), (count, 1))


def test_front_is_the_picture_pixel_by_pixel():
    alpha, colors = disc(), smooth_colors(512)
    surface = relief(alpha, colors)
    columns, rows = pixel_centers(512)
    inside = alpha == 1
    points = points_at(surface, columns[inside], rows[inside])
    got = surface.appearance.sample(points, facing(len(points), 0.6)).base_color
    assert np.abs(got - cut_out(alpha, colors).image[inside][:, :3] / 255).max() < 2e-3


def test_front_between_pixels_is_bilinear():
    colors = np.random.default_rng(0).random((512, 512, 3))
    surface = relief(disc(), colors)
    columns, rows = np.random.default_rng(1).uniform(180, 330, (2, 2000))
    got = surface.appearance.sample(points_at(surface, columns, rows), facing(2000, 1.0))
    i, j = np.floor(columns - 0.5).astype(int), np.floor(rows - 0.5).astype(int)
    s, t = (columns - 0.5 - i)[:, None], (rows - 0.5 - j)[:, None]
    picture = np.round(colors * 255) / 255
    above = picture[j, i] * (1 - s) + picture[j, i + 1] * s
    below = picture[j + 1, i] * (1 - s) + picture[j + 1, i + 1] * s
    assert np.abs(got.base_color - (above * (1 - t) + below * t)).max() < 2e-3


@pytest.mark.parametrize("draw", [disc, wheel])
def test_no_background_reaches_any_point_of_the_surface(draw):
    """The subject is red; the picture around it is green."""
    alpha = draw()
    surface = relief(alpha, on_green(alpha, np.full((*alpha.shape, 3), [0.8, 0.1, 0.1])))
    normals = np.random.default_rng(0).standard_normal(surface.vertices.shape)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    got = surface.appearance.sample(surface.vertices, normals.astype(np.float32)).base_color
    np.testing.assert_allclose(got, np.tile([0.8, 0.1, 0.1], (len(got), 1)), atol=0.01)


def test_back_is_the_mirror_image_and_soft():
    """Seen from behind, left and right swap by themselves: the lookup is the same x, y."""
    columns, rows = pixel_centers(512)
    stripes = 0.5 + 0.3 * np.sin(columns / 1.5)
    half = np.where(columns < 256, 0.2, -0.2)
    colors = np.stack([stripes + half, stripes, stripes], axis=-1)
    surface = relief(disc(), colors)
    at = np.linspace(120, 390, 200)
    points = points_at(surface, at, np.full(200, 256.0)) - np.array([0, 0, 0.15], np.float32)
    front, rim, back = (
        surface.appearance.sample(points, facing(200, z)).base_color for z in (1.0, 0.0, -1.0)
    )
    assert np.ptp(front[:, 1]) > 0.5
    assert np.ptp(rim[:, 1]) < 0.5 * np.ptp(front[:, 1])
    assert np.ptp(back[:, 1]) < 0.03
    assert back[0, 0] > 0.6 and back[-1, 0] < 0.4  # x small stays reddish


def test_colour_changes_without_a_jump_from_front_to_back():
    surface = relief(disc(), np.random.default_rng(0).random((512, 512, 3)))
    angles = np.linspace(0, np.pi, 4000)
    normals = np.stack([np.sin(angles), np.zeros(4000), np.cos(angles)], axis=1)
    points = points_at(surface, np.full(4000, 300.3), np.full(4000, 240.7))
    points[:, 2] = 0.2 * np.cos(angles)
    colors = surface.appearance.sample(points, normals.astype(np.float32)).base_color
    assert np.abs(np.diff(colors, axis=0)).max() < 0.01


def test_material_is_opaque_and_matte_for_any_number_of_points():
    surface = relief(disc(64), smooth_colors(64))
    for count in (0, 1, 7):
        material = surface.appearance.sample(np.zeros((count, 3)), facing(count, 1.0))
        assert material.base_color.shape == (count, 3)
        assert (material.alpha == 1).all() and (material.metallic == 0).all()
        assert (material.roughness == np.float32(0.9)).all()


def test_extension_keeps_opaque_colours_and_reaches_every_pixel():
    alpha = disc(100, 0.2)
    image = cut_out(alpha, smooth_colors(100)).image
    extended = extend_colors(image)
    opaque = image[..., 3] == 255
    np.testing.assert_allclose(extended[opaque], image[opaque][:, :3] / 255, atol=1e-6)
    used = image[image[..., 3] > 0.3 * 255][:, :3] / 255
    low, high = used.min(axis=0), used.max(axis=0)
    assert (extended >= low - 1e-4).all() and (extended <= high + 1e-4).all()
