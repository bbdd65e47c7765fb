"""Solids that share edges where they meet, as meshes of voxels have them, with chance windings."""

import numpy as np
import pytest
from helpers.geometry import edge_uses, is_closed_and_oriented, signed_volume

from onelook.asset.clean import clean

Array = np.ndarray
Box = tuple[tuple[int, int, int], tuple[int, int, int]]  # lowest and highest corner, in cells


def skins(*boxes: Box, wall: int | None = None, seed: int = 0) -> tuple[Array, Array]:
    """The unit squares that bound each box, each once, as triangles turned at random; wall: also
    all squares of the first box at this height of x."""
    quads = set()
    for low, high in boxes:
        for axis in range(3):
            for at in (low[axis], high[axis]):
                quads |= squares(low, high, axis, at)
    if wall is not None:
        quads |= squares(*boxes[0], 0, wall)
    corners = np.array(sorted(quads))  # (Q, 4, 3)
    points, index = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    index = index.reshape(-1, 4)
    faces = np.concatenate([index[:, [0, 1, 2]], index[:, [0, 2, 3]]])
    flip = np.random.default_rng(seed).random(len(index)) < 0.5
    flip = np.concatenate([flip, flip])[:, None]
    faces = np.where(flip, faces[:, ::-1], faces)
    return points.astype(np.float32), faces.astype(np.int32)


def squares(low, high, axis: int, at: int) -> set:
    """The unit squares of a box's section at a place on an axis, four corners each."""
    u, v = (axis + 1) % 3, (axis + 2) % 3
    found = set()
    for i in range(low[u], high[u]):
        for j in range(low[v], high[v]):
            corners = np.zeros((4, 3), int)
            corners[:, axis] = at
            corners[:, u], corners[:, v] = (i, i + 1, i + 1, i), (j, j, j + 1, j + 1)
            found.add(tuple(map(tuple, corners.tolist())))
    return found


def volume(box: Box) -> int:
    return int(np.prod(np.subtract(box[1], box[0])))


BIG, SMALL = ((0, 0, 0), (8, 8, 8)), ((5, 5, 3), (11, 10, 7))


@pytest.mark.parametrize("seed", range(4))
def test_solids_that_run_into_each_other_become_their_union(seed):
    """What of each lies within the other is hidden, and four faces meet where they cross."""
    vertices, faces = skins(BIG, SMALL, seed=seed)
    assert (edge_uses(faces) == 4).sum() > 10
    sound = clean(vertices, faces, device="cpu")
    assert sound.is_closed and is_closed_and_oriented(sound.faces)
    overlap = volume(((5, 5, 3), (8, 8, 7)))
    wanted = volume(BIG) + volume(SMALL) - overlap
    assert signed_volume(sound.vertices, sound.faces) == pytest.approx(wanted, rel=1e-3)
    assert sound.hidden_parts == 2


@pytest.mark.parametrize("seed", range(4))
def test_all_of_it_is_turned_outward_where_hidden_parts_stay(seed):
    sound = clean(*skins(BIG, SMALL, seed=seed), drop_hidden=False, device="cpu")
    assert sound.is_closed and is_closed_and_oriented(sound.faces)
    total = signed_volume(sound.vertices, sound.faces)
    assert total == pytest.approx(volume(BIG) + volume(SMALL), rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_wall_within_a_solid_goes(seed):
    vertices, faces = skins(BIG, wall=3, seed=seed)
    assert (edge_uses(faces) == 3).any()
    sound = clean(vertices, faces, device="cpu")
    assert sound.is_closed and sound.hidden_parts == 1 and sound.open_holes == 0
    assert signed_volume(sound.vertices, sound.faces) == pytest.approx(volume(BIG), rel=1e-3)


def test_nothing_goes_that_would_leave_a_hole():
    """A wall in a box without a lid is seen from above, and stays."""
    vertices, faces = skins(BIG, wall=4)
    lid = (vertices[faces][:, :, 2] == 8).all(1)
    sound = clean(vertices, faces[~lid], device="cpu")
    assert sound.hidden_parts == 0
    assert len(sound.faces) == (~lid).sum()
