"""A triplane's density, colours, mesh and pictures are the original's."""

import numpy as np
import pytest
import torch
from helpers.geometry import is_closed_and_oriented, signed_volume
from helpers.golden import seed_weights
from helpers.parity import Parity
from helpers.triposr_cases import seeded_field
from scipy.spatial import cKDTree

from onelook.asset.texels import TexelGeometry
from onelook.errors import ForegroundError, SurfaceError
from onelook.foreground.framing import resize_foreground
from onelook.isosurface.density_grid import crossed_cells, dense_cells
from onelook.nn.triplane import Triplane, sample_planes
from triposr_backend.backend import TO_CANONICAL
from triposr_backend.config import DecoderConfig, RendererConfig
from triposr_backend.extract_mesh import extract_mesh, grid_axis
from triposr_backend.preparation import over_grey
from triposr_backend.renderer import Occupancy, clip_to_box, orbit_rays, render_rays
from triposr_backend.scene_field import AXES, SceneField
from triposr_backend.scene_model import Decoder


def nearest(points, others):
    return cKDTree(others).query(points)


def test_cut_out_is_framed_over_grey(load_case):
    case = load_case("triposr/preprocess")
    for name, ratio in case.info["config"]["ratios"].items():
        framed = resize_foreground(case.arrays[f"{name}_in"], ratio)
        np.testing.assert_array_equal(framed, case.arrays[f"{name}_resized"])
        np.testing.assert_array_equal(over_grey(framed), case.arrays[f"{name}_grey"])
    with pytest.raises(ForegroundError, match="every pixel is transparent"):
        resize_foreground(np.zeros((40, 40, 4), np.uint8))


@torch.inference_mode()
@pytest.mark.parametrize("chunk_size", [0, 7])
def test_query(load_case, chunk_size):
    case = Parity(load_case("triposr/query_triplane"))
    planes, points = case["triplane"], case["points"]
    field = seeded_field(case, planes, chunk_size)
    radius = case.config["renderer"]["radius"]
    case.check("sampled_features", Triplane.of(planes, AXES, radius).features(points))
    case.check("sampled_features", sample_planes(planes, points / radius, AXES))
    raw = field.raw(points)
    case.check("density", raw[:, :1])
    case.check("features", raw[:, 1:])
    case.check("density_act", field.density(points)[:, None])
    case.check("color", field.colors(points))


@torch.inference_mode()
def test_planes_to_mesh(load_case):
    case = Parity(load_case("triposr/extract_mesh"))
    resolution, threshold = case.config["resolution"], case.config["threshold"]
    field = seeded_field(case, case["scene_codes"][0])
    radius = field.config.radius
    axis = grid_axis(resolution, radius)
    density = field.density(torch.cartesian_prod(axis, axis, axis))
    case.check("density", density.reshape(3 * (resolution,)))

    mesh = extract_mesh(field, resolution, threshold)
    vertices, wanted = mesh.vertices.numpy(), case["vertices"].numpy()
    distance, there = nearest(vertices, wanted)
    atol = case.tolerance["atol"]
    assert distance.max() < atol and nearest(wanted, vertices)[0].max() < atol
    colors = np.rint(255 * mesh.vertex_colors.numpy())
    stored = case["vertex_colors"].numpy()[there, :3].astype(float)
    assert np.abs(colors - stored).max() <= case.case.info["uint8_tolerance"]
    volumes = [
        signed_volume(one.double().numpy(), faces.numpy())
        for one, faces in ((mesh.vertices, mesh.faces), (case["vertices"], case["faces"]))
    ]
    assert np.sign(volumes[0]) == np.sign(volumes[1])


def test_canonical_space_is_the_demos_turned_round(load_case):
    """The demo turns y up but leaves the front at -z: half a turn about y lies between."""
    case = load_case("triposr/extract_mesh")
    ours = case.arrays["vertices"] @ np.array(TO_CANONICAL).T
    np.testing.assert_allclose(ours * [-1, 1, -1], case.arrays["gradio_vertices"], atol=1e-6)
    assert np.linalg.det(TO_CANONICAL) == 1


@torch.inference_mode()
def test_colours_of_a_texture(load_case):
    """The original's atlas: each texel asks for the colour of the point it stands for."""
    case = Parity(load_case("triposr/bake_texture"))
    numbers = load_case("triposr/query_triplane").info["config"]  # of all cases' decoder
    planes = case["scene_code"]
    size, arrays = case.config["texture_resolution"], case.case.arrays
    decoder = case.seed(Decoder(DecoderConfig(**numbers["decoder"])), "decoder.")
    field = SceneField(planes, decoder, RendererConfig(**numbers["renderer"]))
    covered = arrays["positions_texture"][..., 3] > 0
    positions = torch.from_numpy(arrays["positions_texture"][..., :3][covered])
    got = field.colors(positions).numpy()
    wanted = arrays["colors_texture"][..., :3][covered]
    np.testing.assert_allclose(got, wanted, **case.tolerance)

    spread, faces = arrays["vertices"][arrays["vmapping"]], arrays["indices"].astype(np.int32)
    geometry = TexelGeometry(spread, np.zeros_like(spread), arrays["uvs"], faces, size, "cpu")
    piece = geometry.piece(0, size)
    points = np.full((size * size, 3), np.nan, np.float32)
    points[piece.texels] = geometry.points(piece).points
    points = points.reshape(size, size, 3)
    both = np.isfinite(points[..., 0]) & covered
    assert both.sum() > 0.5 * covered.sum()
    apart = np.linalg.norm(points[both] - arrays["positions_texture"][..., :3][both], axis=1)
    assert np.quantile(apart, 0.7) < 1e-3  # the rest are border texels, which it widens


def test_camera_rays(load_case):
    case = Parity(load_case("triposr/spherical_cameras"))
    for name, view in case.config.items():
        origins, directions = orbit_rays(
            view["n_views"],
            view["height"],
            view["width"],
            view["elevation_deg"],
            view["camera_distance"],
            view["fovy_deg"],
        )
        case.check(f"{name}_rays_o", origins)
        case.check(f"{name}_rays_d", directions)


def test_three_views_stand_a_third_of_a_turn_apart():
    """The original's cameras are wrong for this number alone."""
    origins, directions = orbit_rays(3, 1, 1)
    wanted = 1.9 * torch.tensor([[1, 0, 0], [-0.5, 3**0.5 / 2, 0], [-0.5, -(3**0.5) / 2, 0]])
    torch.testing.assert_close(origins[:, 0, 0], wanted)
    torch.testing.assert_close(directions[:, 0, 0], -wanted / 1.9)


def test_rays_are_clipped_to_the_box(load_case):
    case = Parity(load_case("triposr/rays_intersect_bbox"))
    near, far, counts = clip_to_box(case["rays_o"], case["rays_d"], case.config["radius"])
    case.check("valid", counts)
    case.check("t_near", near[:, None])
    case.check("t_far", far[:, None])


def test_render(load_case):
    case = Parity(load_case("triposr/nerf_render"))
    field = seeded_field(case, case["triplane"])
    case.check("rgb", render_rays(field, case["rays_o"], case["rays_d"]))


def test_film(load_case):
    case = Parity(load_case("triposr/tsr_render"))
    field = seeded_field(case, case["scene_codes"][0])
    view = case.config
    rgb = render_rays(field, *orbit_rays(view["n_views"], view["height"], view["width"]))
    case.check("rgb", rgb)
    pixels = (rgb * 255).to(torch.uint8).int()
    assert (pixels - case["rgb_uint8"].int()).abs().max() <= case.case.info["uint8_tolerance"]


def ball_field(radius=0.4, side=64, chunk_size=0):
    """Planes that hold squares of coordinates, and a decoder that sums them: a ball."""
    config = RendererConfig(radius=0.87, num_samples_per_ray=64)
    places = ((torch.arange(side) + 0.5) / side * 2 - 1) * config.radius
    squares = places.square()
    rows, columns = squares[:, None].expand(side, side), squares[None].expand(side, side)
    planes = torch.zeros(3, 1, side, side)
    planes[0, 0] = rows + columns  # x^2 + y^2
    planes[1, 0] = rows  # z^2
    decoder = Decoder(DecoderConfig(in_channels=3, n_neurons=16, n_hidden_layers=1))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        first, last = decoder.layers[0], decoder.layers[2]
        first.weight[0], first.weight[1] = torch.tensor([[1.0, 1, 0], [-1.0, -1, 0]])
        last.weight[0, 0], last.weight[0, 1] = -100, 100  # silu(a) - silu(-a) = a
        last.bias[0] = 100 * radius**2 + 1 + np.log(25.0)
        last.bias[1:] = torch.tensor([0.0, 1.0, 2.0])
    return SceneField(planes, decoder, config, chunk_size)


class TestBall:
    def test_mesh_is_a_ball(self):
        mesh = extract_mesh(ball_field(), 128)
        vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy()
        assert is_closed_and_oriented(faces)
        assert np.abs(np.linalg.norm(vertices, axis=1) - 0.4).max() < 0.01
        assert abs(signed_volume(vertices, faces) / (4 / 3 * np.pi * 0.4**3) - 1) < 0.02
        wanted = 1 / (1 + np.exp(-np.arange(3)))
        np.testing.assert_allclose(mesh.vertex_colors, np.tile(wanted, (len(vertices), 1)), 1e-5)

    def test_mesh_does_not_depend_on_the_size_of_chunks_or_the_threads(self):
        expected = extract_mesh(ball_field(), 64)
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            mesh = extract_mesh(ball_field(chunk_size=1000), 64)
        finally:
            torch.set_num_threads(before)
        for name in ("vertices", "faces", "vertex_colors"):
            assert torch.equal(getattr(mesh, name), getattr(expected, name))

    def test_pictures_are_the_same_where_empty_space_is_left_out(self):
        field, rays = ball_field(), orbit_rays(3, 32, 32, elevation=20)
        asked = []
        raw = field.raw
        field.raw = lambda points: asked.append(len(points)) or raw(points)
        whole, asked_whole = render_rays(field, *rays), sum(asked)
        occupancy = Occupancy.of(field)
        asked.clear()
        quick = render_rays(field, *rays, occupancy)
        assert (whole - quick).abs().max() < 1 / 255
        assert sum(asked) < asked_whole / 2
        assert asked_whole < 3 * 32 * 32 * 64  # rays end in the ball
        assert 0.02 < occupancy.is_filled.float().mean() < 0.4

    def test_pictures_show_a_disc_on_white(self):
        rgb = render_rays(ball_field(), *orbit_rays(2, 48, 48))
        assert (rgb[:, 0, 0] == 1).all()
        inside = 1 / (1 + torch.exp(-torch.arange(3.0)))
        torch.testing.assert_close(rgb[:, 24, 24], inside.expand(2, -1), rtol=0.02, atol=0.02)
        covered = (rgb[0, ..., 0] < 0.75).sum() / 48**2
        half_angle = np.arcsin(0.4 / 1.9)
        share = np.pi * (np.tan(half_angle) / np.tan(np.radians(20))) ** 2 / 4
        assert abs(covered - share) < 0.1 * share


@torch.inference_mode()
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_coarse_to_fine_gives_the_dense_grid(share):
    """A decoder of the official depth on smooth random planes, at 16 texels."""
    draw = torch.Generator().manual_seed(4)
    coarse = torch.randn(3, 8, 6, 6, generator=draw)
    planes = torch.nn.functional.interpolate(coarse, (16, 16), mode="bicubic")
    decoder = Decoder(DecoderConfig(in_channels=24, n_neurons=32, n_hidden_layers=9))
    seed_weights(decoder, 3)
    field = SceneField(planes, decoder, RendererConfig(radius=0.87))
    axis = grid_axis(70, 0.87)
    level = float(field.density(torch.cartesian_prod(*3 * (axis[::5],))).quantile(share))
    found = crossed_cells(field.density, axis, level, field.side)
    dense = dense_cells(field.density, axis, level)
    assert len(dense.cells) > 1000
    assert torch.equal(found.cells, dense.cells) and torch.equal(found.values, dense.values)
    assert found.queries < dense.queries


def test_nothing_above_the_threshold_is_refused():
    with pytest.raises(SurfaceError, match="never crosses the level 1e"):
        extract_mesh(ball_field(), 32, threshold=1e30)
