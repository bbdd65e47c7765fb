"""Edges, components and fans against slow, obvious ways to find them."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.solids import cube, grid_sheet, joined, moved, sphere

from onelook.asset.topology import (
    components,
    count_fans,
    edges_of_rest,
    face_areas,
    face_heights,
    face_parts,
    find_edges,
    first_at_position,
    is_closed,
)


@pytest.fixture
def tangle() -> np.ndarray:
    """Random faces on few vertices: edges with any number of faces."""
    faces = np.random.default_rng(4).integers(0, 12, (60, 3)).astype(np.int32)
    return faces[(faces != np.roll(faces, 1, axis=1)).all(1)]


def listed_edges(faces: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """Half-edges of every edge, by its sorted ends."""
    found: dict[tuple[int, int], list[int]] = {}
    for f, face in enumerate(faces.tolist()):
        for k in range(3):
            ends = tuple(sorted((face[k], face[(k + 1) % 3])))
            found.setdefault(ends, []).append(3 * f + k)
    return dict(sorted(found.items()))


def as_listed(edges) -> dict[tuple[int, int], list[int]]:
    return {
        tuple(ends): edges.order[start : start + uses].tolist()
        for ends, start, uses in zip(edges.ends.tolist(), edges.start, edges.uses, strict=True)
    }


def test_edges_are_those_of_a_plain_loop(tangle):
    edges = find_edges(tangle)
    assert as_listed(edges) == listed_edges(tangle)
    assert all(edges.of_half[edges.order[s]] == e for e, s in enumerate(edges.start))
    assert sorted(edges.crowded()) == sorted(
        h for halves in listed_edges(tangle).values() if len(halves) > 2 for h in halves
    )


def test_edges_of_the_rest_are_those_found_anew(tangle):
    stays = np.random.default_rng(5).random(len(tangle)) < 0.6
    got, want = edges_of_rest(find_edges(tangle), stays), find_edges(tangle[stays])
    for name in ("ends", "uses", "order", "start", "of_half"):
        assert np.array_equal(getattr(got, name), getattr(want, name)), name


def test_components_are_numbered_by_their_lowest_items():
    links = np.array([[7, 2], [2, 5], [9, 1], [3, 3]])
    count, label = components(links, 10)
    assert count == 7
    assert label.tolist() == [0, 1, 2, 3, 4, 2, 5, 2, 6, 1]


def test_long_chain_is_one_component():
    n = 200_000
    chain = np.random.default_rng(0).permutation(n)
    count, label = components(np.stack([chain[:-1], chain[1:]], 1), n)
    assert count == 1 and not label.any()


def test_parts_share_no_vertex():
    _, faces = joined(cube(), moved(sphere(8), 1, (2, 0, 0)), moved(grid_sheet(2), 1, (5, 0, 0)))
    count, part = face_parts(faces, int(faces.max()) + 1)
    assert count == 3
    assert [int((part == k).sum()) for k in range(3)] == [12, 224, 8]


def test_a_closed_mesh_has_one_fan_per_vertex_and_a_bow_tie_two():
    vertices, faces = sphere(8)
    assert count_fans(len(faces), find_edges(faces).paired()) == len(vertices)
    bow_tie = np.array([[0, 1, 2], [0, 3, 4]])
    assert count_fans(2, find_edges(bow_tie).paired()) == 6  # five vertices
    assert is_closed(faces) and not is_closed(bow_tie)


def test_areas_and_heights():
    vertices = np.array([[0, 0, 0], [4, 0, 0], [0, 3, 0], [2, 0, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 0, 0]])
    assert face_areas(vertices, faces).tolist() == [6, 0, 0]
    assert face_heights(vertices, faces) == pytest.approx([12 / 5, 0, 0])


def test_first_at_position_knows_zero_has_no_sign():
    points = np.array([[0, 1, 0], [2, 2, 2], [-0.0, 1, 0], [2, 2, 2.0000002]], np.float32)
    assert first_at_position(points).tolist() == [0, 1, 0, 3]
