"""Triplanes to a mesh as the original does it, and what we do otherwise."""

import numpy as np
import pytest
import torch
from helpers.geometry import is_closed_and_oriented, signed_volume
from helpers.instantmesh_cases import tiny_config
from helpers.parity import Parity

from instantmesh_backend.cameras import view_cameras
from instantmesh_backend.decoder_heads import AXES, MeshHeads, ShapeField
from instantmesh_backend.extract_mesh import (
    displacement,
    extract_mesh,
    lattice_axis,
    lattice_surface,
    repair_empty,
)
from instantmesh_backend.reconstruction import build_reconstruction
from onelook.canonical import CanonicalFrame
from onelook.errors import SurfaceError
from onelook.isosurface.cube_cases import CORNER_OFFSETS
from onelook.nn.triplane import Triplane, TriplaneField, sample_planes
from onelook.nn.triplane_appearance import TriplaneAppearance


def all_cells(resolution):
    """Corners (R^3, 8) of a lattice's cells, as rows of its points."""
    axis = torch.arange(resolution)
    cells = torch.cartesian_prod(axis, axis, axis)[:, None] + torch.tensor(CORNER_OFFSETS)
    size = resolution + 1
    return (cells * torch.tensor([size * size, size, 1])).sum(-1)


def seeded_model(case):
    model = case.seed(build_reconstruction(tiny_config(case)))
    if "net_sdf_last_bias" in case.case.arrays:
        model.synthesizer.decoder.net_sdf[6].bias.data = case["net_sdf_last_bias"]
    return model


def test_lattice(load_case):
    case = Parity(load_case("instantmesh/flexicubes_grid"))
    for resolution in case.config["grid_res"]:
        axis = lattice_axis(resolution, case.config["scale"])
        case.check(f"verts_{resolution}", torch.cartesian_prod(axis, axis, axis))
        case.check(f"cubes_{resolution}", all_cells(resolution))


def test_points_next_to_the_middle_and_on_the_border(load_case):
    """What the repair of an empty field touches."""
    case = Parity(load_case("instantmesh/flexicubes_grid"))
    resolution = max(case.config["grid_res"])
    sdf = torch.full(((resolution + 1) ** 3,), 0.25)
    changed = torch.nonzero(repair_empty(sdf, resolution) != sdf)[:, 0]
    touched = {*case[f"center_indices_{resolution}"][:, 0].tolist()}
    touched |= {*case[f"boundary_indices_{resolution}"][:, 0].tolist()}
    assert {*changed.tolist()} == touched


@torch.inference_mode()
def test_triplane_sampling(load_case):
    case = Parity(load_case("instantmesh/triplane_sampling"))
    for planes, points, wanted in zip(
        case["planes"], case["points"], case["features"], strict=True
    ):
        places = points * (2 / case.config["box_warp"])
        wanted = wanted.transpose(0, 1).flatten(1)  # (N, 3 C)
        for got in (
            Triplane.of(planes, AXES).features(places),
            sample_planes(planes, places, AXES),
        ):
            torch.testing.assert_close(got, wanted, **case.case.info["tolerance"])


@torch.inference_mode()
def test_heads(load_case):
    case = Parity(load_case("instantmesh/decoder_heads_mesh"))
    planes, points = case["planes"][0], case["verts"]
    decoder = torch.nn.Module()
    decoder.decoder = MeshHeads(planes.shape[1])
    field = ShapeField(planes, case.seed(decoder).decoder)
    case.check("sdf", field.sdf(points)[None, :, None])
    case.check("deformation", field.deformation(points)[None])
    case.check("weight", field.weights(points, case["cubes"])[None])
    case.check("rgb_at_0p7", field.colors()(0.7 * points)[None])


@torch.inference_mode()
def test_planes_to_mesh(load_case):
    case = Parity(load_case("instantmesh/extract_mesh_tiny"))
    model, planes = seeded_model(case), case["planes"]
    config = model.config
    axis = lattice_axis(config.grid_res, config.grid_scale)
    points = torch.cartesian_prod(axis, axis, axis)
    field = ShapeField(planes[0], model.synthesizer.decoder)
    case.check("sdf", field.sdf(points)[None, :, None])
    case.check("deformation", displacement(field.deformation(points), config.grid_res)[None])
    case.check("weight", field.weights(points, all_cells(config.grid_res))[None])
    mesh = extract_mesh(model, planes)
    case.check("mesh_verts", mesh.vertices)
    case.check("mesh_faces", mesh.faces)
    case.check("vertex_rgb_float", mesh.vertex_colors)
    stored = (mesh.vertex_colors * 255).to(torch.uint8).int()
    assert (stored - case["vertex_colors"].int()).abs().max() <= 1


@pytest.mark.parametrize("sign", ["all_positive", "all_negative"])
def test_repair_of_an_empty_shape(load_case, sign):
    case = Parity(load_case("instantmesh/sdf_postfix"))
    resolution, scale = case.config["grid_res"], case.config["grid_scale"]
    raw = {name: case[f"{sign}_{name}_in"][0] for name in ("sdf", "deformation", "weight")}
    sdf = repair_empty(raw["sdf"][:, 0], resolution)
    case.check(f"{sign}_sdf_out", sdf[None, :, None])
    moves = displacement(raw["deformation"], resolution)
    case.check(f"{sign}_deformation_out", moves[None])
    axis = lattice_axis(resolution, scale)
    lattice = torch.cartesian_prod(axis, axis, axis)

    def rows_of(points):
        return torch.cdist(points.double(), lattice.double()).argmin(1)

    def weights(points, corners):
        cells = torch.nonzero(
            (all_cells(resolution)[:, None, 0] == rows_of(points)[corners[:, 0]]).T
        )[:, 1]
        return raw["weight"][cells]

    mesh = lattice_surface(sdf, axis, lambda points: raw["deformation"][rows_of(points)], weights)
    case.check(f"{sign}_mesh_verts", mesh.vertices)
    case.check(f"{sign}_mesh_faces", mesh.faces)


@torch.inference_mode()
def test_texture_is_asked_where_it_is_covered(load_case):
    case = Parity(load_case("instantmesh/texture_prediction"))
    model = seeded_model(case)
    colors = ShapeField(case["planes"][0], model.synthesizer.decoder).colors()
    covered = case["mask"][0, ..., 0] > 0
    wanted = case["tex_feat"][0]
    torch.testing.assert_close(
        colors(case["gb_pos"][0][covered]), wanted[covered], **case.case.info["tolerance"]
    )
    assert (wanted[~covered] == 0).all()


@torch.inference_mode()
def test_appearance_gives_the_colours_of_the_vertices(load_case):
    case = Parity(load_case("instantmesh/extract_mesh_tiny"))
    mesh = extract_mesh(seeded_model(case), case["planes"])
    own = mesh.vertices.numpy()
    rotation = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    frame = CanonicalFrame.around(own, rotation)
    placed = frame.enter(own)
    low, high = placed.min(0), placed.max(0)
    np.testing.assert_allclose((high - low).max(), 1, atol=1e-6)
    np.testing.assert_allclose(low + high, 0, atol=1e-6)
    np.testing.assert_allclose(frame.leave(placed), own, atol=1e-6)
    appearance = TriplaneAppearance(mesh.colors, frame, torch.device("cpu"))
    material = appearance.sample(placed, np.zeros_like(placed))
    np.testing.assert_allclose(material.base_color, mesh.vertex_colors.numpy(), atol=1e-4)


class TestSurface:
    """A field of known shape in place of the network's."""

    resolution = 40

    def surface(self, sdf, scale=2.1):
        axis = lattice_axis(self.resolution, scale)
        asked = []

        def deformation(points):
            asked.append(len(points))
            return torch.zeros(len(points), 3)

        def weights(points, corners):
            return torch.zeros(len(corners), 21)

        points = torch.cartesian_prod(axis, axis, axis)
        return lattice_surface(sdf(points), axis, deformation, weights), asked[0]

    def test_ball_is_closed_and_faces_outwards(self):
        mesh, asked = self.surface(lambda points: points.norm(dim=1) - 0.6)
        vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy()
        assert is_closed_and_oriented(faces)
        assert np.abs(np.linalg.norm(vertices, axis=1) - 0.6).max() < 0.01
        np.testing.assert_allclose(
            signed_volume(vertices, faces), 4 / 3 * np.pi * 0.6**3, rtol=0.02
        )
        assert asked < 0.15 * (self.resolution + 1) ** 3

    def test_a_field_of_one_sign_is_refused(self):
        with pytest.raises(SurfaceError, match="nowhere crossed"):
            self.surface(lambda points: points.norm(dim=1) + 1)


@torch.inference_mode()
def test_numbers_that_are_not_finite_are_refused(load_case):
    case = Parity(load_case("instantmesh/extract_mesh_tiny"))
    model, planes = seeded_model(case), case["planes"].clone()
    planes[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(SurfaceError, match="triplanes hold numbers that are not finite"):
        extract_mesh(model, planes)
    model.synthesizer.decoder.net_sdf[6].bias.data += float("inf")
    with pytest.raises(SurfaceError, match="signed field holds numbers that are not finite"):
        extract_mesh(model, case["planes"])


@torch.inference_mode()
def test_field_of_a_point_depends_on_that_point_alone(load_case):
    """Any division of the points, any number of threads: the same bytes."""
    case = Parity(load_case("instantmesh/extract_mesh_tiny"))
    planes = torch.randn(3, 5, 16, 16, generator=torch.Generator().manual_seed(1))
    points = torch.rand(70_000, 3, generator=torch.Generator().manual_seed(2)) * 2.1 - 1.05
    for activation in (torch.nn.ReLU, torch.nn.SiLU):
        sizes = (15, 64, 64, 3)
        layers = [
            part
            for first, second in zip(sizes, sizes[1:], strict=False)
            for part in (torch.nn.Linear(first, second), activation())
        ]
        network = case.seed(torch.nn.Sequential(*layers[:-1]))
        field = TriplaneField(Triplane.of(planes, AXES), network)
        wanted = network(sample_planes(planes, points, AXES))
        got = field(points)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        assert torch.equal(field(points, at_once=999), got)
        some = torch.arange(0, len(points), 7)
        assert torch.equal(field(points[some]), got[some])
        assert torch.equal(field(points[-3:]), got[-3:])
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            assert torch.equal(field(points), got)
        finally:
            torch.set_num_threads(before)


@torch.inference_mode()
def test_any_number_of_threads_gives_the_same_bytes(load_case):
    case = Parity(load_case("instantmesh/extract_mesh_tiny"))
    model = seeded_model(case)
    images = torch.rand(1, 6, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    made, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            planes = model.forward_planes(images, view_cameras())
            made.append((planes, extract_mesh(model, case["planes"])))
    finally:
        torch.set_num_threads(before)
    (planes, mesh), (other_planes, other) = made
    assert torch.equal(planes, other_planes)
    for name in ("vertices", "faces", "vertex_colors"):
        assert torch.equal(getattr(mesh, name), getattr(other, name))


def test_weights_are_asked_in_parts(load_case, monkeypatch):
    case = Parity(load_case("instantmesh/extract_mesh_tiny"))
    model = seeded_model(case)
    whole = extract_mesh(model, case["planes"])
    monkeypatch.setattr("instantmesh_backend.decoder_heads._CELLS", 50)
    parts = extract_mesh(model, case["planes"])
    torch.testing.assert_close(parts.vertices, whole.vertices, rtol=0, atol=1e-6)
