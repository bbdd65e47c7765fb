"""What a shape decoder gives, with all its faults, through the asset pipeline."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers.geometry import component_count, edge_uses, is_closed_and_oriented, signed_volume
from helpers.solids import cube, joined, moved
from made_dual_grid import MadeDualGrid, made_dual_grid, painted, torus_shell

from onelook.asset.asset import Asset
from onelook.asset.build import build_asset
from onelook.asset.clean import clean
from onelook.asset.topology import weld_index
from onelook.report import Report
from onelook.surface import Surface
from trellis2_backend.dual_grid import DualGrid, dual_grid_to_mesh
from trellis2_backend.frame import Frame
from trellis2_backend.mesh_to_dual_grid import mesh_to_dual_grid
from trellis2_backend.voxel_appearance import VoxelAppearance

RESOLUTION, RADIUS, TUBE = 96, 0.3, 0.13
SPECKS = np.array([[0.44, 0.44, 0.3], [-0.4, 0.42, -0.3], [0, 0, 0.1]], np.float32)


@dataclass(frozen=True)
class Decoded:
    """A surface in canonical space, the frame it was moved by, and how much is wrong with it."""

    surface: Surface
    frame: Frame
    conflicting_edges: float  # share of the edges that two faces walk the same way
    open_edges: int


def decoded(noise: float = 0.0, gash: bool = False) -> Decoded:
    """A hollow torus and specks beside it, with ten holes in its outer skin; noise: the share of
    voxels that are lost and of flags that are wrong. gash: also a hole round half of the torus."""
    made = made_dual_grid(torus_and_specks, RESOLUTION, 1.1)
    rng = np.random.default_rng(1)
    kept = ~_in_holes(made, rng) & (rng.random(len(made.coords)) >= noise)
    if gash:
        centres = _centres(made)
        kept &= ~((centres[:, 2] > TUBE - 0.03) & (centres[:, 0] > 0))
    flags = made.intersected ^ (rng.random(made.intersected.shape) < noise)
    moved = made.offsets + noise * 5 * rng.normal(0, 0.15, made.offsets.shape)
    rows = (made.coords, moved.astype(np.float32), flags, made.split_weight)
    coords, offsets, flags, weight = (torch.from_numpy(array[kept]) for array in rows)
    mesh = dual_grid_to_mesh(DualGrid(coords, offsets, flags, RESOLUTION, weight))
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    frame = Frame.fitting(vertices[np.unique(faces)])
    appearance = VoxelAppearance(
        coords.numpy(),
        made.attributes[kept],
        RESOLUTION,
        frame.voxels_from_canonical(RESOLUTION),
        "cpu",
    )
    uses = edge_uses(faces)
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    walked = np.unique(directed[:, 0] << 32 | directed[:, 1], return_counts=True)[1]
    return Decoded(
        Surface(frame.to_canonical(vertices), faces, appearance),
        frame,
        (walked > 1).sum() / len(uses),
        int((uses == 1).sum()),
    )


def torus_and_specks(points):
    distance = torus_shell(RADIUS, TUBE, 0.06)(points)
    for speck in SPECKS:
        ball = np.linalg.norm(points - speck, axis=1) - np.float32(0.02)
        distance = np.minimum(distance, ball)
    return distance


def _centres(made: MadeDualGrid):
    return (made.coords + 0.5) / RESOLUTION - 0.5


def _in_holes(made: MadeDualGrid, rng):
    centres = _centres(made)
    outer = np.hypot(np.hypot(centres[:, 0], centres[:, 1]) - RADIUS, centres[:, 2]) > TUBE - 0.02
    holes = centres[rng.choice(np.flatnonzero(outer), 10, replace=False)]
    distance = np.linalg.norm(centres[:, None] - holes, axis=2).min(1)
    return distance < 3 / RESOLUTION


def build(surface: Surface, faces: int = 4000) -> tuple[Asset, dict]:
    report = Report()
    asset = build_asset(
        surface, decimation_target=faces, texture_size=256, report=report, device="cpu"
    )
    return asset, report.figures


def welded(asset: Asset):
    position, count = weld_index(asset.vertices)
    vertices = np.empty((count, 3), np.float32)
    vertices[position] = asset.vertices
    return vertices, position[asset.faces]


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_decoded_shape_becomes_one_closed_outward_skin(noise):
    got = decoded(noise)
    assert 0.15 < got.conflicting_edges < 0.21  # as in the original's outputs
    assert got.open_edges > 200
    asset, figures = build(got.surface)
    vertices, faces = welded(asset)
    assert figures["watertight"] and is_closed_and_oriented(faces)
    assert figures["components"] == component_count(vertices, faces) == 1  # no speck, no inner skin
    assert figures["faces"] == len(faces) == 4000
    assert figures["faces_before"] == len(got.surface.faces)
    wanted = 2 * np.pi**2 * RADIUS * TUBE**2 * got.frame.scale**3
    assert signed_volume(vertices, faces) == pytest.approx(wanted, rel=0.02)


def test_its_textures_hold_what_the_voxels_say():
    """Also where holes were closed: there the nearest voxels answer."""
    got = decoded()
    asset, figures = build(got.surface)
    centre, uvs = (a[asset.faces].mean(1) for a in (asset.vertices, asset.uvs))
    texels = np.minimum((uvs * 256).astype(int), 255)
    matrix = got.frame.voxels_from_canonical(RESOLUTION)
    wanted = painted((centre @ matrix[:3, :3].T + matrix[:3, 3]) / RESOLUTION - 0.5)
    color = asset.textures.base_color[texels[:, 1], texels[:, 0]] / 255
    surface = asset.textures.metallic_roughness[texels[:, 1], texels[:, 0]] / 255
    error = np.abs(np.column_stack([color[:, :3], surface]) - wanted[:, :5])
    assert np.median(error) < 0.02 and error.max() < 0.2
    assert figures["alpha_mode"] == "OPAQUE" and color[:, 3].min() == 1


def test_solids_that_share_voxels_are_turned_outward_together():
    """Where they cross, four faces meet at an edge, and no flag tells inside from outside."""
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    solids = joined(moved(cube(), 0.5), moved(cube(), 0.4, (0.2, 0.2, 0.1)))
    grid = mesh_to_dual_grid(solids[0] @ turn, solids[1], 64)
    mesh = dual_grid_to_mesh(grid)
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    assert (edge_uses(faces) > 2).sum() > 100
    sound = clean(vertices, faces, device="cpu")
    assert sound.is_closed and is_closed_and_oriented(sound.faces)
    assert signed_volume(sound.vertices, sound.faces) > 0.98 * (0.5**3 + 0.4**3 - 0.0219)


def test_a_large_hole_stays_open_and_is_reported():
    got = decoded(gash=True)
    asset, figures = build(got.surface)
    assert figures["watertight"] is False and not asset.is_closed
    _, faces = welded(asset)
    assert (edge_uses(faces) <= 2).all()  # yet no edge has too many faces
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    assert len(np.unique(directed[:, 0] << 32 | directed[:, 1])) == len(directed)  # nor conflicts
