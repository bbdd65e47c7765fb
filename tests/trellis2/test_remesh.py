import numpy as np
import pytest
from helpers.geometry import (
    component_count,
    euler_characteristic,
    is_closed_and_oriented,
    signed_volume,
)
from helpers.solids import cube, grid_sheet, joined, moved, sphere

from onelook.asset.build import build_asset
from onelook.errors import SurfaceError
from onelook.report import Report
from onelook.surface import Material, Surface
from trellis2_backend.remesh import Grid, NearestOf, closed_skin, remeshed


class Positions:
    """Colours that are positions, so that a sample says where it was taken."""

    def sample(self, points, normals):
        return Material.matte(points + 0.5)


def skin(mesh, resolution: int, band: float = 1.0, project: float = 0.0):
    return closed_skin(NearestOf(*mesh, "cpu"), Grid(resolution, 1.25), band, project)


def test_reference_skins(load_case):
    """As sets of triangles by position: their order is not the case's claim."""
    case = load_case("trellis2/remesh_narrow_band")
    mesh = NearestOf(case.arrays["vertices"], case.arrays["faces"], "cpu")
    for name, config in case.info["config"].items():
        grid = Grid(config["resolution"], config["scale"])
        vertices, faces = closed_skin(mesh, grid, config["band"], config["project_back"])
        wanted, wanted_faces = (case.arrays[f"{name}.{key}"] for key in ("vertices", "faces"))
        assert len(vertices) == len(wanted), name
        distance = np.linalg.norm(vertices[:, None] - wanted, axis=2)
        twin = distance.argmin(1)
        assert distance.min(1).max() < 0.01 * config["scale"] / config["resolution"], name
        assert len(np.unique(twin)) == len(wanted), name
        assert turns(twin[faces]) == turns(wanted_faces), name


def turns(faces) -> set:
    """Faces from their lowest corner on: winding counts, the first corner does not."""
    return {tuple(np.roll(face, -face.argmin()).tolist()) for face in faces}


def test_a_sheet_becomes_a_thin_closed_body():
    vertices, faces = skin(grid_sheet(3, size=0.7), 64)
    assert is_closed_and_oriented(faces) and component_count(vertices, faces) == 1
    assert euler_characteristic(vertices, faces) == 2
    band = 1.25 / 64
    assert np.abs(vertices[:, 2]).max() == pytest.approx(band, rel=0.05)
    assert signed_volume(vertices, faces) == pytest.approx(2 * band * 0.72 * 0.72, rel=0.06)


def test_a_solid_gets_two_skins_whatever_its_winding():
    rng = np.random.default_rng(0)
    vertices, faces = sphere(16, 0.4)
    flipped = np.where(rng.random(len(faces))[:, None] < 0.5, faces, faces[:, ::-1])
    out, skin_faces = skin((vertices, flipped), 64)
    assert is_closed_and_oriented(skin_faces) and component_count(out, skin_faces) == 2
    band, shell = 1.25 / 64, 4 * np.pi * 0.4**2
    assert signed_volume(out, skin_faces) == pytest.approx(2 * band * shell, rel=0.05)


def test_vertices_can_be_moved_back_to_the_mesh():
    ball = sphere(32, 0.4)
    closest = NearestOf(*ball, "cpu")
    far, near = (skin(ball, 64, project=share)[0] for share in (0.0, 0.9))
    distances = [closest.distance(vertices, 1.0) for vertices in (far, near)]
    assert distances[1] == pytest.approx(0.1 * distances[0], abs=2e-3 * 1.25 / 64)


def test_a_remeshed_surface_is_one_watertight_asset_in_the_colours_within():
    """Two boxes that cut through each other, one of them open: nothing that filling could mend."""
    open_box = (cube()[0], cube()[1][2:])
    mesh = joined(moved(open_box, 0.6, (-0.2, 0, 0)), moved(cube(), 0.5, (0.25, 0.1, 0.1)))
    report = Report()
    surface = remeshed(Surface(*mesh, Positions()), 64, device="cpu")
    asset = build_asset(
        surface, decimation_target=6000, texture_size=256, report=report, device="cpu"
    )
    assert report.figures["watertight"]
    uvs, centre = asset.uvs[asset.faces].mean(1), asset.vertices[asset.faces].mean(1)
    texels = np.minimum((uvs * 256).astype(int), 255)
    color = asset.textures.base_color[texels[:, 1], texels[:, 0], :3] / 255 - 0.5
    on_the_mesh = NearestOf(*mesh, "cpu").distance(color.astype(np.float32), 1.0)
    assert np.median(on_the_mesh) < 0.003 and np.abs(color - centre).max() < 0.04


def test_a_mesh_outside_of_the_grid_is_refused():
    with pytest.raises(SurfaceError, match="outside of the grid"):
        skin(moved(cube(), 0.5, (9, 9, 9)), 64)
