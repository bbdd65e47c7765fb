"""Asked from coarse to fine, a density has the cells of the dense grid, and their very values."""

from importlib.util import find_spec

import numpy as np
import pytest

if not find_spec("torch"):
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from onelook.isosurface.density_grid import crossed_cells, dense_cells
from onelook.isosurface.marching_cubes import marching_cubes


class Asked:
    """A density that keeps count of how often each point was asked for."""

    def __init__(self, density):
        self.density, self.points = density, []

    def __call__(self, points):
        self.points.append(points)
        return self.density(points)


def knot(points, tube=0.06, sharpness=40):
    """A (2, 3) torus knot, 0.8 long."""
    t = torch.linspace(0, 2 * torch.pi, 400)
    ring = 0.27 + 0.11 * (3 * t).cos()
    curve = torch.stack([ring * (2 * t).cos(), ring * (2 * t).sin(), 0.14 * (3 * t).sin()], 1)
    parts = [torch.cdist(part, curve).amin(1) for part in points.split(20_000)]
    return ((tube - torch.cat(parts)) * sharpness).clamp(-40, 40).exp()


def waves(points):
    """Surfaces everywhere, which also run out of the grid."""
    x, y, z = (5 * points).T
    return ((3 * x).sin() + (2.3 * y + x).sin() + (2.7 * z + y).sin()).mul(2).exp()


def random_network(points):
    """A small network on smooth random features, as a triplane's decoder is one."""
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.randn(shape, generator=generator) for shape in ((3, 32), (32, 1)))
    return ((6 * points @ first).sin() @ second)[:, 0].exp()


def same(found, wanted):
    assert len(wanted.cells) > 100
    assert torch.equal(found.cells, wanted.cells)
    assert torch.equal(found.values, wanted.values)


@pytest.mark.parametrize("density", [knot, waves, random_network])
@pytest.mark.parametrize(("points", "features"), [(64, 32), (70, 16), (97, 24)])
def test_cells_are_those_of_the_dense_grid(density, points, features):
    axis = torch.linspace(-0.5, 0.5, points)
    found = crossed_cells(density, axis, 1.0, features)
    wanted = dense_cells(density, axis, 1.0)
    assert len(wanted.cells) > 500
    same(found, wanted)
    assert found.queries < wanted.queries == points**3


def test_dense_grid_is_that_of_marching_cubes():
    axis = torch.linspace(-0.5, 0.5, 40)
    found = dense_cells(waves, axis, 1.0)
    field = waves(torch.cartesian_prod(axis, axis, axis)).reshape(40, 40, 40).numpy()
    inside = field >= 1.0
    corners = [
        inside[x : 39 + x, y : 39 + y, z : 39 + z] for z in (0, 1) for y in (0, 1) for x in (0, 1)
    ]
    count = np.sum(corners, axis=0)
    np.testing.assert_array_equal(found.cells, np.argwhere((count > 0) & (count < 8)))
    assert len(marching_cubes(field, 1.0)[1]) > len(found.cells)


def test_a_small_surface_is_found_with_few_questions():
    axis = torch.linspace(-0.5, 0.5, 129)
    asked = Asked(lambda points: knot(points, tube=0.04))
    found = crossed_cells(asked, axis, 1.0, 32)
    assert found.queries == sum(len(points) for points in asked.points) < 129**3 / 5
    for points in asked.points:
        assert len(points.unique(dim=0)) == len(points)  # nothing is asked twice at a time
        assert points.abs().max() <= 0.5  # nor beyond the grid


def test_a_thread_between_the_first_looks_is_followed_to_its_end():
    """Thinner than a hundredth of the grid, it shows at the first looks only here and there."""
    axis = torch.linspace(-0.5, 0.5, 101)

    def thread(points):
        x, y, z = points.T
        distance = torch.hypot(y - 0.21 * x, z + 0.17 * x + 0.01).sub(0.006)
        return (-200 * distance).clamp(-40, 40).exp() * (x.abs() < 0.45)

    found = crossed_cells(thread, axis, 1.0, 50)
    same(found, dense_cells(thread, axis, 1.0))
    assert found.cells[:, 0].min() < 10 and found.cells[:, 0].max() > 88


def test_a_density_beyond_all_numbers_hides_nothing():
    axis = torch.linspace(-0.5, 0.5, 65)

    def ball(points):
        return (4000 * (0.3 - points.norm(dim=1))).exp()  # 0 and infinite a step away

    same(crossed_cells(ball, axis, 1.0, 16), dense_cells(ball, axis, 1.0))


def test_no_surface_gives_no_cells():
    axis = torch.linspace(-1, 1, 33)
    found = crossed_cells(lambda points: torch.full((len(points),), 0.5), axis, 1.0, 8)
    assert found.cells.shape == (0, 3) and found.values.shape == (0, 8)
    # a density of zero has no logarithm
    found = crossed_cells(lambda points: torch.zeros(len(points)), axis, 1.0, 8)
    assert not len(found.cells)
