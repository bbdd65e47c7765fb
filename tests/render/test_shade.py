import dataclasses

import numpy as np
import pytest

from onelook.render.background import STUDIO, contact_shadow
from onelook.render.camera import orbit_camera, orthographic_camera
from onelook.render.environment import prefilter
from onelook.render.scene import RenderScene
from onelook.render.shade import render

WHITE = prefilter(lambda directions: np.ones(directions.shape, np.float32))
FRONT = orthographic_camera()


def solid(color, size=16):
    return np.full((size, size, 4), [*color, 255], np.uint8)


def noise(size, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (size, size, 4), dtype=np.uint8)
    image[..., 3] = 255
    return image


def neutral(gray):
    """Khronos PBR Neutral of a grey, then sRGB: a plain copy of the published formula."""
    value = gray - (0.04 if gray >= 0.08 else gray - 6.25 * gray * gray)
    if value > 0.76:
        value = 1 - 0.24**2 / (value + 0.24 - 0.76)
    return 255 * (1.055 * value ** (1 / 2.4) - 0.055 if value > 0.0031308 else 12.92 * value)


def test_unlit_shows_the_texture_exactly(square):
    texture = noise(64)
    picture = render(square(texture), FRONT, 64, 64, unlit=True, supersample=1, device="cpu")
    np.testing.assert_array_equal(picture, texture)


def test_unlit_keeps_a_plain_colour_whatever_the_size(square, sphere):
    color = (201, 77, 3)
    for asset in (square(solid(color)), sphere(solid(color))):
        picture = render(asset, FRONT, 50, 50, unlit=True, device="cpu")
        assert (picture[picture[..., 3] == 255][:, :3] == color).all()


def test_texture_lies_upright_and_not_mirrored(square):
    texture = solid((0, 0, 0), 64)
    texture[:32, :32, 0], texture[:32, 32:, 1], texture[32:, :32, 2] = 255, 255, 255
    picture = render(square(texture), FRONT, 32, 32, unlit=True, device="cpu")[..., :3]
    assert picture[4, 4].tolist() == [255, 0, 0]
    assert picture[4, 27].tolist() == [0, 255, 0]
    assert picture[27, 4].tolist() == [0, 0, 255]


def test_mip_levels_average_in_linear_light(square):
    texture = solid((255, 255, 255), 256)
    texture[::2, ::2, :3] = texture[1::2, 1::2, :3] = 0
    picture = render(square(texture), FRONT, 32, 32, unlit=True, supersample=1, device="cpu")
    assert abs(picture[..., :3].astype(int) - 188).max() <= 1  # half of the light, sRGB-encoded


def test_mip_levels_keep_a_fine_pattern_from_flickering(square):
    texture = noise(512)
    still = [
        render(square(texture), orbit_camera(angle, 0, 3, 30), 48, 48, unlit=True, device="cpu")
        for angle in (0.0, 0.3)
    ]
    inner = [picture[16:32, 16:32, :3].astype(float) for picture in still]
    # without levels a pixel would be the mean of 4 of about 450 texels: deviation 74 / 2
    assert inner[0].std() < 15
    assert abs(inner[0] - inner[1]).mean() < 8


def test_white_in_white_surroundings_stays_white(sphere):
    expected = neutral(1.0)
    for metallic, roughness in ((0.0, 1.0), (0.0, 0.3), (1.0, 1.0), (1.0, 0.0)):
        asset = sphere(metallic_factor=metallic, roughness_factor=roughness)
        picture = render(asset, FRONT, 64, 64, environment=WHITE, device="cpu")
        opaque = picture[picture[..., 3] == 255][:, :3].astype(float)
        assert abs(opaque - expected).max() <= 1.5


def test_studio_shows_grey_about_as_it_is_and_nothing_burns(sphere):
    picture = render(sphere(solid((150, 150, 150))), FRONT, 64, 64, device="cpu")
    ball = picture[picture[..., 3] == 255][:, :3].astype(float)
    assert ball.mean() == pytest.approx(150, abs=15)
    assert ball.min() > 60 and ball.max() < 200
    white = render(sphere(), FRONT, 64, 64, device="cpu")
    assert 215 < white[32, 32, :3].mean() < 250


def test_metal_mirrors_tinted_light_and_a_dielectric_scatters_white_on_top(sphere):
    lamp = prefilter(lambda d: np.repeat(np.where(d[..., 2:] > 0.9, 0.7, 0.0), 3, -1))
    red = solid((220, 60, 60))
    plastic, metal = (
        render(
            sphere(red, metallic_factor=metallic, roughness_factor=0.0),
            FRONT,
            96,
            96,
            environment=lamp,
            device="cpu",
        )[..., :3].astype(float)
        for metallic in (0.0, 1.0)
    )
    # at the centre the ball mirrors the lamp, halfway out the dark beside it
    assert metal[48, 48, 0] > 150 and metal[48, 48, 2] < 0.35 * metal[48, 48, 0]
    assert metal[48, 72].max() < 10 and plastic[48, 72, 0] > 40
    gloss = (plastic[48, 48] - plastic[48, 60]).clip(0)  # the lamp on top of the diffuse red
    assert gloss[2] > 10


def test_roughness_texture_and_factor_mean_the_same(sphere):
    factor = sphere(solid((90, 120, 200)), metallic_factor=1.0, roughness_factor=0.4)
    texture = np.empty((16, 16, 2), np.uint8)
    texture[...] = 255, 102
    textured = sphere(solid((90, 120, 200)), metallic_roughness=texture)
    pictures = [render(asset, FRONT, 48, 48, device="cpu") for asset in (factor, textured)]
    assert abs(pictures[0].astype(int) - pictures[1]).max() <= 1


def test_normal_map_bends_towards_its_right_and_up(square):
    up_light = prefilter(lambda d: np.repeat(np.maximum(d[..., 1:2], 0), 3, -1))
    right_light = prefilter(lambda d: np.repeat(np.maximum(d[..., :1], 0), 3, -1))
    flat, right, up = (128, 128, 255), (218, 128, 218), (128, 218, 218)
    for light, towards in ((up_light, up), (right_light, right)):
        level = {
            normal: render(
                square(solid((200, 200, 200)), normal=np.full((16, 16, 3), normal, np.uint8)),
                FRONT,
                8,
                8,
                environment=light,
                device="cpu",
            )[4, 4, 0]
            for normal in (flat, right, up)
        }
        assert max(level, key=level.get) == towards
        assert level[towards] > level[flat] + 20


def test_open_surfaces_are_lit_from_both_sides(square):
    asset = square(solid((180, 120, 60)))
    front, back = (
        render(asset, orthographic_camera(azimuth), 16, 16, environment=WHITE, device="cpu")
        for azimuth in (0, 180)
    )
    np.testing.assert_array_equal(front, back)
    closed = dataclasses.replace(asset, is_closed=True)
    assert (render(closed, orthographic_camera(180), 16, 16, device="cpu")[..., 3] == 0).all()


def test_edges_are_smooth_and_keep_their_colour(sphere):
    picture = render(sphere(solid((200, 40, 40))), FRONT, 64, 64, unlit=True, device="cpu")
    alpha = picture[..., 3]
    assert {64, 128, 191} <= set(alpha.ravel().tolist())
    assert (picture[alpha > 0][:, :3] == (200, 40, 40)).all()  # straight alpha, no dark fringe
    assert alpha.mean() / 255 == pytest.approx(np.pi / 4, rel=0.01)


def test_light_stays_with_the_camera(sphere):
    first, second = (
        render(sphere(), orbit_camera(azimuth, 20, 3, 30), 48, 48, device="cpu").astype(int)
        for azimuth in (0, 90)  # the sphere has 48 segments: 90 degrees map it onto itself
    )
    assert abs(first - second).max() <= 2


def test_mask_cuts_and_blend_shows_through(square):
    texture = solid((255, 0, 0), 16)
    texture[:, :8, 3], texture[:, 8:, 3] = 100, 160
    for mode, left, right in (("OPAQUE", 255, 255), ("MASK", 0, 255), ("BLEND", 100, 160)):
        asset = dataclasses.replace(square(texture), alpha_mode=mode)
        picture = render(asset, FRONT, 16, 16, unlit=True, device="cpu")
        assert (picture[8, 3, 3], picture[8, 12, 3]) == (left, right)


def test_blended_layers_hide_each_other_in_order(square):
    near = dataclasses.replace(square(solid((255, 0, 0))), alpha_mode="BLEND")
    vertices = np.concatenate([near.vertices - [0, 0, 0.2], near.vertices + [0, 0, 0.2]])
    texture = np.concatenate([solid((0, 0, 255)), solid((255, 0, 0))], axis=1)[:, ::2]
    texture[..., 3] = 128
    both = dataclasses.replace(
        near,
        vertices=vertices.astype(np.float32),
        normals=np.tile(near.normals, (2, 1)),
        uvs=np.concatenate([near.uvs * [0.4, 1], near.uvs * [0.4, 1] + [0.6, 0]]).astype("f4"),
        faces=np.concatenate([near.faces, near.faces + 4]),
        textures=dataclasses.replace(near.textures, base_color=texture),
    )
    picture = render(both, FRONT, 16, 16, unlit=True, device="cpu")[8, 8]
    weights = np.array([128 / 255, (1 - 128 / 255) * 128 / 255])
    linear = np.array([weights[0], 0, weights[1]]) / weights.sum()
    expected = 255 * (1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    assert picture[[0, 2]] == pytest.approx(expected[[0, 2]], abs=1.5)
    assert picture[3] == pytest.approx(255 * weights.sum(), abs=1)


def test_background_is_what_was_asked_for(sphere):
    camera = orbit_camera(0, 10, 4, 30)
    plain = render(sphere(), camera, 32, 32, background=(12, 200, 90), device="cpu")
    assert plain[0, 0].tolist() == [12, 200, 90, 255] and (plain[..., 3] == 255).all()
    studio = render(sphere(), camera, 64, 64, background=STUDIO, device="cpu")
    assert studio[0, 0, :3].tolist() == list(STUDIO.top)
    under, beside = studio[48, 32, :3].mean(), studio[48, 2, :3].mean()
    assert under < 0.75 * beside  # the floor is darker where the ball stands


def test_contact_shadow_of_a_ball_is_the_one_of_the_textbook(sphere):
    shadow, reach, ground = contact_shadow(RenderScene(sphere(), "cpu"))
    shadow = shadow.numpy()
    assert ground == pytest.approx(-0.5)
    centre = (np.arange(len(shadow)) + 0.5) / len(shadow) * 2 * reach - reach
    distance = np.hypot(*np.meshgrid(centre, centre))
    # a ball of radius r at height r covers r^3 / (r^2 + d^2)^(3/2) of the cosine-weighted sky
    exact = 0.125 / (0.25 + distance**2) ** 1.5
    near = distance < 0.35 * reach  # farther out the shadow is faded to nothing
    assert abs(shadow - exact)[near].max() < 0.15  # grain, right where the ball touches
    assert abs(shadow - exact)[near].mean() < 0.02


def test_threads_and_reuse_do_not_change_a_byte(knot, monkeypatch):
    camera = orbit_camera(30, 12, 2.6, 30)
    pictures = []
    for threads in (1, 2, 5):
        for module in ("onelook.kernels", "onelook.render.raster_buffers"):
            monkeypatch.setattr(f"{module}.thread_count", lambda threads=threads: threads)
        scene = RenderScene(knot, "cpu")
        pictures += [render(scene, camera, 80, 60, background=STUDIO) for _ in range(2)]
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, pictures[0])


def test_wide_pictures_keep_shapes_round(sphere):
    alpha = render(sphere(), orbit_camera(0, 0, 4, 30), 96, 48, device="cpu")[..., 3] / 255
    for weights, size in ((alpha.sum(axis=1), 48), (alpha.sum(axis=0), 96)):
        places = np.arange(size) + 0.5
        assert np.average(places, weights=weights) == pytest.approx(size / 2, abs=0.05)
        spread = np.average((places - size / 2) ** 2, weights=weights) ** 0.5
        # a disk's deviation is half its radius; the ball's outline lies in the plane of its rim
        radius = 24 * np.tan(np.arcsin(0.5 / 4)) / np.tan(np.radians(15))
        assert spread == pytest.approx(radius / 2, rel=0.02)


def test_sizes_out_of_range_are_refused(sphere):
    with pytest.raises(ValueError, match="must be positive"):
        render(sphere(), FRONT, 0, 8)
    with pytest.raises(ValueError, match="at most 16384"):
        render(sphere(), FRONT, 9000, 8)


@pytest.mark.gpu
def test_cuda_takes_the_same_picture(knot):
    wp = pytest.importorskip("warp")
    if not wp.is_cuda_available():
        pytest.skip("no CUDA device")
    camera = orbit_camera(30, 12, 2.6, 30)
    pictures = [
        render(knot, camera, 128, 128, background=STUDIO, device=device).astype(int)
        for device in ("cpu", "cuda:0")
    ]
    assert abs(pictures[0] - pictures[1]).max() <= 2
