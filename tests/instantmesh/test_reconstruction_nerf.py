"""The NeRF models' density, mesh and pictures, and the cameras, as the original has them."""

import numpy as np
import pytest
import torch
from helpers.geometry import signed_volume
from helpers.instantmesh_cases import tiny_config
from helpers.parity import Parity
from scipy.spatial import cKDTree

from instantmesh_backend.cameras import FOUR_VIEWS, nerf_numbers, orbit, view_cameras
from instantmesh_backend.decoder_heads import DensityField, NerfHead
from instantmesh_backend.extract_mesh import extract_mesh
from instantmesh_backend.nerf_renderer import Draws, camera_rays, ray_ends, render_pictures
from instantmesh_backend.reconstruction import build_reconstruction
from onelook.errors import SurfaceError
from onelook.render.camera import Camera


def density_field(case):
    """The field of a case recorded from the original's synthesizer."""
    planes = case["planes"][0]
    synthesizer = torch.nn.Module()
    synthesizer.decoder = NerfHead(planes.shape[1])
    return DensityField(planes, case.seed(synthesizer).decoder)


def test_cameras(load_case):
    case = Parity(load_case("instantmesh/cameras"))
    case.check("input_cameras", view_cameras())
    case.check("input_cameras_batch2_radius3p2", view_cameras(2, radius=3.2))
    case.check("four_view_indices", torch.tensor(FOUR_VIEWS))
    case.check("input_cameras_four_views", view_cameras()[:, list(FOUR_VIEWS)])
    frames = len(case["circular_c2w_8"])
    case.check("circular_c2w_8", orbit(frames))
    case.check("flexicubes_render_cameras_8", torch.linalg.inv(orbit(frames))[None])
    case.check("nerf_render_cameras_8", nerf_numbers(orbit(frames))[None])
    case.check("intrinsics", nerf_numbers(orbit(1))[0, 16:].reshape(3, 3))


def test_our_camera_sees_what_the_originals_sees(load_case):
    """Its rasteriser's rows begin at the bottom, so the original turns y over."""
    case = Parity(load_case("instantmesh/mesh_render_math"))
    fov = case.config["fovy"]
    points = torch.nn.functional.pad(case["verts"][0], (0, 1), value=1.0)
    for number, world_to_camera in enumerate(case["world_to_camera"]):
        camera = Camera(world_to_camera.numpy(), fov_degrees=fov, near=0.1, far=1000.0)
        turned = np.diag([1, -1, 1, 1]) @ camera.projection(1.0)
        tolerance = case.case.info["tolerance"]
        np.testing.assert_allclose(turned, case["projection"][0], **tolerance)
        clip = points.numpy() @ camera.clip_from_world(1.0).T * [1, -1, 1, 1]
        np.testing.assert_allclose(clip, case["clip_points"][number], **tolerance)


@torch.inference_mode()
def test_density_and_colour(load_case):
    case = Parity(load_case("instantmesh/decoder_nerf"))
    field, points = density_field(case), case["points"][0]
    case.check("rgb", field.colors(points)[None])
    case.check("sigma_raw", field.field(points)[None, :, :1])
    case.check("sigma", field.density(points)[None, :, None])
    axis = torch.linspace(-1, 1, case["grid6_sigma"].shape[1])
    grid = torch.cartesian_prod(axis, axis, axis)
    shape = (1, *3 * (len(axis),), -1)
    case.check("grid6_sigma", field.density(grid).reshape(shape))
    case.check("grid6_rgb", field.colors(grid).reshape(shape))


@torch.inference_mode()
def test_planes_to_mesh(load_case):
    case = Parity(load_case("instantmesh/nerf_extract_tiny"))
    model = case.seed(build_reconstruction(tiny_config(case)))
    resolution, threshold = case.config["mesh_resolution"], float(case["threshold"])
    mesh = extract_mesh(model, case["planes"], resolution, threshold)
    field = DensityField(case["planes"][0], model.synthesizer.decoder)
    axis = torch.linspace(-1, 1, resolution)
    sigma = field.density(torch.cartesian_prod(axis, axis, axis))
    case.check("sigma", sigma.reshape(1, *3 * (resolution,), 1))
    vertices, wanted = mesh.vertices.numpy(), case["mesh_verts"].numpy()
    there = cKDTree(wanted).query(vertices)
    assert there[0].max() < 1e-4
    assert cKDTree(vertices).query(wanted)[0].max() < 1e-4
    colors = (mesh.vertex_colors * 255).to(torch.uint8).numpy().astype(int)
    stored = case["vertex_colors"].numpy().astype(int)
    assert np.abs(colors - stored[there[1]]).max() <= 1
    volumes = [
        signed_volume(one[0].double().numpy(), one[1].numpy())
        for one in ((mesh.vertices, mesh.faces), (case["mesh_verts"], case["mesh_faces"]))
    ]
    assert np.sign(volumes[0]) == np.sign(volumes[1])


@torch.inference_mode()
def test_a_density_that_never_reaches_the_threshold_is_refused(load_case):
    case = Parity(load_case("instantmesh/nerf_extract_tiny"))
    model = case.seed(build_reconstruction(tiny_config(case)))
    with pytest.raises(SurfaceError, match="never crosses the level 1000"):
        extract_mesh(model, case["planes"], 12, 1000.0)


@torch.inference_mode()
def test_pictures(load_case):
    case = Parity(load_case("instantmesh/nerf_render"))
    cameras, size = case["cameras"][0], case.config["render_size"]
    origins, directions = camera_rays(cameras, size)
    views = len(cameras)
    case.check("ray_origins", origins.unflatten(0, (views, -1)))
    case.check("ray_dirs", directions.unflatten(0, (views, -1)))
    near, far = ray_ends(origins, directions)
    case.check("near", near.reshape(views, -1, 1))
    case.check("far", far.reshape(views, -1, 1))
    draws = Draws(case["uniform_0"].flatten(0, 1)[..., 0], case["uniform_1"])
    pictures = render_pictures(density_field(case), cameras, size, draws)
    case.check("images_rgb", pictures.rgb[None])
    case.check("images_depth", pictures.depth[None])
    case.check("images_weight", pictures.weight[None])
