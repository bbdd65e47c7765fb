"""Cleaning: whatever comes in, what goes out is manifold, agrees in winding, and lost nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import meshes
import numpy as np
import pytest
from helpers.solids import (
    cube,
    edge_uses,
    grid_sheet,
    joined,
    moved,
    repeated_directed_edges,
    sphere,
    volume,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from meshes import damaged_knot, knot, scramble_winding

from onelook.asset.clean import clean
from onelook.asset.simplify import simplify
from onelook.errors import SurfaceError


def is_closed(faces: np.ndarray) -> bool:
    return bool((edge_uses(faces) == 2).all())


def fan_count(faces: np.ndarray) -> int:
    """Fans of faces around all vertices, by walking from face to face: the slow obvious way."""
    fans = 0
    for vertex in range(int(faces.max()) + 1):
        around = {i: set(f) - {vertex} for i, f in enumerate(faces.tolist()) if vertex in f}
        while around:
            fans += 1
            front = [around.popitem()[1]]
            while front:
                ends = front.pop()
                for i in [i for i, others in around.items() if others & ends]:
                    front.append(around.pop(i))
    return fans


def test_sound_mesh_comes_back_untouched():
    vertices, faces = sphere()
    result = clean(vertices, faces)
    assert result.vertices is vertices and result.faces is faces
    assert result.is_closed and result.flipped_faces == result.filled_holes == 0


def test_triangle_soup_of_a_cube_is_welded_shut():
    vertices, faces = cube()
    result = clean(vertices[faces].reshape(-1, 3), np.arange(36).reshape(-1, 3))
    assert len(result.vertices) == 8 and result.is_closed
    assert volume(result.vertices, result.faces) == pytest.approx(1)


def test_faces_that_point_nowhere_are_dropped_and_counted():
    vertices, faces = sphere()
    vertices = np.concatenate([vertices, [[np.nan, 0, 0], [np.inf, 0, 0]]]).astype(np.float32)
    n = len(vertices)
    bad = np.array([[0, 1, n - 2], [0, 1, n - 1], [0, 1, n], [-1, 0, 1]])
    result = clean(vertices, np.concatenate([faces, bad]))
    assert result.invalid_faces == 4
    assert result.is_closed and len(result.faces) == len(faces)
    assert np.isfinite(result.vertices).all()


@pytest.mark.parametrize(
    "vertices, faces, sentence",
    [
        (np.zeros((3, 3)), np.empty((0, 3), int), "no faces"),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]]), "none of the 1 faces"),
        (np.zeros((0, 3)), np.array([[0, 1, 2]]), "none of the 1 faces"),
        (np.ones((3, 3)), np.array([[0, 1, 2]]), "has an area"),
        (np.arange(9.0).reshape(3, 3), np.array([[0, 1, 2], [0, 0, 1]]), "has an area"),
        (np.zeros((3, 2)), np.array([[0, 1, 2]]), r"\(N, 3\)"),
        (np.zeros((3, 3)), np.array([[0, 1]]), r"\(M, 3\)"),
    ],
)
def test_hopeless_input_is_refused_with_a_reason(vertices, faces, sentence):
    with pytest.raises(SurfaceError, match=sentence):
        clean(vertices.astype(np.float32), faces)


def test_floaters_go_by_area_and_leaves_stay():
    body = sphere(24)
    dust = [moved(sphere(4), 0.02, (0.7, 0.1 * i, 0)) for i in range(5)]
    leaf = moved(grid_sheet(1), 0.3, (0, 0.9, 0))  # two faces, but a real area
    result = clean(*joined(body, *dust, leaf))
    assert result.floaters == 5
    assert len(result.faces) == len(body[1]) + 2
    assert result.vertices[:, 1].max() == pytest.approx(1.05)
    everything = clean(*joined(body, *dust, leaf), floater_share=0)
    assert everything.floaters == 0


def test_duplicates_flips_and_fins_leave_no_trace():
    vertices, faces = sphere()
    fin = np.array([[*faces[0, :2], len(vertices)]])
    tip = vertices[faces[0, :2]].mean(0, keepdims=True) * 1.2
    mess = np.concatenate([faces, faces[5:9], faces[20:24, ::-1], fin])
    result = clean(np.concatenate([vertices, tip]).astype(np.float32), mess)
    assert result.duplicate_faces == 8 and result.fins == 1
    assert result.is_closed and len(result.faces) == len(faces)
    assert volume(result.vertices, result.faces) == pytest.approx(volume(vertices, faces))


@pytest.mark.parametrize("share", [0.02, 0.17, 0.5, 1.0])
def test_any_share_of_flipped_faces_is_turned_outward(share):
    vertices, faces = knot(6000)
    result = clean(vertices, scramble_winding(faces, share))
    assert repeated_directed_edges(result.faces) == 0
    assert result.is_closed
    assert volume(result.vertices, result.faces) == pytest.approx(volume(vertices, faces))


def test_thin_closed_plate_is_turned_outward():
    vertices, faces = cube()
    vertices = vertices * np.array([1, 1, 0.005], np.float32)
    result = clean(vertices, faces[:, ::-1])
    assert volume(result.vertices, result.faces) == pytest.approx(0.005)


def test_open_shell_faces_where_it_is_seen():
    vertices, faces = sphere(24)
    cup = faces[vertices[faces].mean(1)[:, 1] < 0.3]
    result = clean(vertices, cup[:, ::-1])
    assert result.open_holes == 1  # too large to be closed
    normals = np.cross(
        result.vertices[result.faces[:, 1]] - result.vertices[result.faces[:, 0]],
        result.vertices[result.faces[:, 2]] - result.vertices[result.faces[:, 0]],
    )
    assert ((normals * result.vertices[result.faces].mean(1)).sum(1) > 0).all()


def test_thin_sheet_over_a_body_is_turned_to_be_seen():
    lid = moved(grid_sheet(4), 1.2, (0, 0, 0.51))
    result = clean(*joined(cube(), (lid[0], lid[1][:, ::-1])), drop_hidden=False)
    of_lid = (result.vertices[result.faces][..., 2] > 0.505).all(1)
    a, b, c = (result.vertices[result.faces[of_lid, k]] for k in range(3))
    assert of_lid.sum() == 32 and (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_moebius_band_is_cut_rather_than_left_in_conflict():
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    middle = np.stack([np.cos(t), np.sin(t), 0 * t], 1)
    across = np.stack([np.cos(t / 2) * np.cos(t), np.cos(t / 2) * np.sin(t), np.sin(t / 2)], 1)
    vertices = np.concatenate([middle - 0.3 * across, middle + 0.3 * across]).astype(np.float32)
    i = np.arange(60)
    low, high = i, i + 60
    next_low, next_high = np.r_[i[1:], 60], np.r_[high[1:], 0]  # the ends meet crosswise
    faces = np.concatenate(
        [np.stack([low, next_low, high], 1), np.stack([high, next_low, next_high], 1)]
    )
    result = clean(vertices, faces)
    assert len(result.faces) == len(faces)
    assert repeated_directed_edges(result.faces) == 0
    assert edge_uses(result.faces).max() == 2


def test_solids_that_touch_in_an_edge_and_a_corner_are_parted():
    touching = joined(cube(), moved(cube(), 1, (1, 1, 0)), moved(cube(), 1, (-1, -1, 1)))
    result = clean(*touching, drop_hidden=False)
    assert result.is_closed and result.split_vertices > 0
    assert len(result.faces) >= 36
    assert len(np.unique(result.vertices, axis=0)) == len(result.vertices)  # never weld again
    assert volume(result.vertices, result.faces) == pytest.approx(3, rel=1e-3)
    assert fan_count(result.faces) == len(result.vertices)
    again = clean(result.vertices, result.faces)
    assert again.faces is result.faces


@pytest.mark.parametrize("flips", [0.0, 0.3])
def test_inner_wall_is_parted_from_the_shell_it_meets(flips):
    vertices, faces = sphere(24)
    equator = np.flatnonzero(np.abs(vertices[:, 1]) < 1e-6)
    equator = equator[np.argsort(np.arctan2(vertices[equator, 2], vertices[equator, 0]))]
    hub = np.full(len(equator), len(vertices))
    wall = np.stack([equator, np.roll(equator, -1), hub], 1)  # three faces at every equator edge
    everything = scramble_winding(np.concatenate([faces, wall]), flips)
    result = clean(np.concatenate([vertices, [[0, 0, 0]]]).astype(np.float32), everything)
    assert result.hidden_parts == 1 and result.is_closed
    assert len(result.faces) == len(faces)
    assert volume(result.vertices, result.faces) == pytest.approx(volume(vertices, faces), rel=1e-3)


def test_crossing_walls_are_parted_into_whole_sheets():
    flat = moved(grid_sheet(8), 1, (0, 0, 0))
    upright = flat[0][:, [2, 0, 1]] * np.float32(1)  # through the middle row of the other one
    result = clean(*joined(flat, (upright, flat[1])), drop_hidden=False, hole_edges=0)
    assert len(result.faces) == 2 * len(flat[1])
    assert edge_uses(result.faces).max() == 2 and repeated_directed_edges(result.faces) == 0
    assert result.open_holes == 2  # two sheets, each with one border


def test_pinched_hole_is_two_holes():
    vertices, faces = sphere(24)
    centre = int(np.linalg.norm(vertices - [0, 0, 0.5], axis=1).argmin())
    around = np.flatnonzero((faces == centre).any(1))
    offsets = vertices[faces[around]].mean(1) - vertices[centre]
    in_turn = around[np.argsort(np.arctan2(offsets[:, 1], offsets[:, 0]))]
    result = clean(vertices, np.delete(faces, in_turn[[0, 1, 3, 4]], axis=0))
    assert result.filled_holes == 2 and result.is_closed
    assert len(result.vertices) == len(vertices)


@pytest.mark.parametrize("radius", [0.03, 0.1, 0.2])
def test_patch_continues_the_sphere(radius):
    vertices, faces = sphere(40)
    hole = np.linalg.norm(vertices[faces].mean(1) - [0.2, 0.1, 0.44], axis=1) < radius
    result = clean(vertices, faces[~hole], hole_share=0.1)
    assert result.filled_holes == 1 and result.is_closed
    new = np.linalg.norm(result.vertices[len(np.unique(faces[~hole])) :], axis=1)
    assert np.abs(new - 0.5).max(initial=0) < 0.004
    assert volume(result.vertices, result.faces) == pytest.approx(volume(vertices, faces), rel=2e-3)


def test_large_holes_are_kept_and_reported():
    vertices, faces = sphere(24)
    half = faces[vertices[faces].mean(1)[:, 1] < 0]
    result = clean(vertices, half)
    assert (result.filled_holes, result.open_holes, result.is_closed) == (0, 1, False)
    few = clean(vertices, np.delete(faces, [0, 1, 2], axis=0), hole_edges=2)
    assert few.filled_holes == 0


def test_zero_height_faces_go_without_opening_the_surface():
    vertices, faces = cube()
    a, b, c = faces[0]
    middle = (vertices[b] + vertices[c]) / 2  # a vertex on an edge: one side gets a cap
    cap = [[a, b, 8], [a, 8, c], [8, b, c]]
    result = clean(
        np.concatenate([vertices, middle[None]]), np.concatenate([faces[1:], cap]).astype(np.int32)
    )
    assert result.is_closed
    assert volume(result.vertices, result.faces) == pytest.approx(1, abs=1e-6)
    a, b, c = (result.vertices[result.faces[:, k]] for k in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 1e-3


def test_hidden_shell_goes_and_what_is_seen_stays():
    shell, inside = sphere(24), moved(sphere(12), 0.5)
    beside = moved(sphere(12), 0.5, (0.9, 0, 0))
    result = clean(*joined(shell, inside, beside))
    assert result.hidden_parts == 1
    assert len(result.faces) == len(shell[1]) + len(beside[1])
    kept = clean(*joined(shell, inside, beside), drop_hidden=False)
    assert kept.hidden_parts == 0 and len(kept.faces) > len(result.faces)


def test_inner_shell_goes_although_the_outer_one_had_holes():
    vertices, faces = sphere(24)
    holes = np.linalg.norm(vertices[faces].mean(1) - [0, 0.3, 0.4], axis=1) < 0.08
    result = clean(*joined((vertices, faces[~holes]), moved(sphere(24), 0.9)))
    assert (result.filled_holes, result.hidden_parts, result.is_closed) == (1, 1, True)


@pytest.fixture(scope="module")
def damaged():
    return damaged_knot(60_000)


@pytest.mark.parametrize("flips", [0.0, 0.17])
def test_everything_wrong_at_once(damaged, flips):
    result = clean(damaged.vertices, scramble_winding(damaged.faces, flips))
    assert result.is_closed
    assert edge_uses(result.faces).max() == 2
    assert repeated_directed_edges(result.faces) == 0
    assert (result.floaters, result.fins) == (damaged.floaters, damaged.fins)
    assert (result.filled_holes, result.hidden_parts) == (damaged.holes, 1)
    assert volume(result.vertices, result.faces) == pytest.approx(volume(*damaged.sound), rel=0.03)


def test_same_mesh_same_bytes(damaged):
    first, second = (clean(damaged.vertices, damaged.faces) for _ in range(2))
    assert first.vertices.tobytes() == second.vertices.tobytes()
    assert first.faces.tobytes() == second.faces.tobytes()


ONE_THREAD = """
import hashlib, os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.path[:0] = sys.argv[1:]
from meshes import damaged_knot
from onelook.asset.clean import clean
from onelook.asset.simplify import simplify
damaged = damaged_knot(60_000)
mesh = clean(damaged.vertices, damaged.faces)
digest = hashlib.sha256()
for array in (mesh.vertices, mesh.faces, *simplify(mesh.vertices, mesh.faces, 5000)):
    digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_another_process_with_one_thread_gives_the_same_bytes(damaged):
    mesh = clean(damaged.vertices, damaged.faces)
    digest = hashlib.sha256()
    for array in (mesh.vertices, mesh.faces, *simplify(mesh.vertices, mesh.faces, 5000)):
        digest.update(array.tobytes())
    folder = str(Path(meshes.__file__).parent)
    command = [sys.executable, "-c", ONE_THREAD, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split()[-1] == digest.hexdigest()


@st.composite
def triangle_soups(draw) -> tuple[np.ndarray, np.ndarray]:
    """Few vertices on a coarse grid, so that faces coincide, touch and degenerate all the time."""
    number = draw(st.sampled_from([0, 0.25, 0.5, 1, np.nan, np.inf, -1e30]))
    count = draw(st.integers(1, 9))
    grid = st.sampled_from([0.0, 0.5, 1.0])
    vertices = np.array(draw(st.lists(st.tuples(grid, grid, grid), min_size=count, max_size=count)))
    if draw(st.booleans()):
        vertices[draw(st.integers(0, count - 1)), draw(st.integers(0, 2))] = number
    corner = st.integers(-1 if draw(st.booleans()) else 0, count - draw(st.integers(0, 1)))
    faces = draw(st.lists(st.tuples(corner, corner, corner), max_size=24))
    return vertices.astype(np.float32), np.array(faces, np.int64).reshape(-1, 3)


@given(triangle_soups())
@settings(max_examples=150, derandomize=True, deadline=None, database=None)
def test_any_soup_is_cleaned_or_refused(soup):
    try:
        result = clean(*soup, floater_share=0.0)
    except SurfaceError:
        return
    assert len(result.faces)
    assert np.isfinite(result.vertices).all()
    assert result.faces.min() >= 0 and result.faces.max() == len(result.vertices) - 1
    uses = edge_uses(result.faces)
    assert uses.max() <= 2
    assert repeated_directed_edges(result.faces) == 0
    assert result.is_closed == bool((uses == 2).all())
    assert fan_count(result.faces) == len(result.vertices)
