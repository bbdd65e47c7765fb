import hashlib
import subprocess
import sys
from functools import cache

import cv2
import numpy as np
import pytest
from helpers.drawing import covered, cut_out, disc, pixel_centers, ring, wheel, words
from helpers.geometry import (
    component_count,
    euler_characteristic,
    face_areas,
    is_closed_and_oriented,
    signed_volume,
    vertex_normals,
)

from onelook.errors import ForegroundError
from onelook.report import Report
from onelook.surface import Surface
from relief_backend.config import ReliefConfig
from relief_backend.inflate import solve_poisson
from relief_backend.pipeline import ReliefBackend
from relief_backend.silhouette import Silhouette


def relief(alpha: np.ndarray, colors: np.ndarray | None = None) -> Surface:
    return ReliefBackend().run(cut_out(alpha, colors), Report())


@cache
def relief_of(draw) -> Surface:
    return relief(draw())


def outline_overlap(surface: Surface, alpha: np.ndarray) -> float:
    """Intersection over union of the front view and alpha > 0.5, at the picture's pixels."""
    frame = surface.appearance.frame
    columns = frame.center_column + frame.scale * surface.vertices[:, 0]
    rows = frame.center_row - frame.scale * surface.vertices[:, 1]
    drawn = covered(np.stack([columns, rows], axis=1), surface.faces, len(alpha))
    mask = alpha > 0.5
    return (drawn & mask).sum() / (drawn | mask).sum()


def full() -> np.ndarray:
    return np.ones((256, 256))


def two_discs() -> np.ndarray:
    return disc(512, 0.2, (0.25, 0.5)) + disc(512, 0.15, (0.75, 0.4))


@pytest.mark.parametrize("draw", [disc, ring, words, wheel, full, two_discs])
def test_body_is_closed_canonical_and_has_the_outline(draw):
    surface = relief_of(draw)
    assert is_closed_and_oriented(surface.faces)
    assert signed_volume(surface.vertices, surface.faces) > 0
    assert face_areas(surface.vertices, surface.faces).min() > 1e-9
    low, high = surface.vertices.min(axis=0), surface.vertices.max(axis=0)
    np.testing.assert_allclose(low, -high, atol=1e-6)
    assert (high - low).max() == pytest.approx(1, abs=1e-6)
    assert outline_overlap(surface, draw()) > 0.99


@pytest.mark.parametrize(
    "draw, characteristic, parts", [(disc, 2, 1), (ring, 0, 1), (wheel, -30, 1), (two_discs, 4, 2)]
)
def test_holes_and_parts_survive(draw, characteristic, parts):
    surface = relief_of(draw)
    assert euler_characteristic(surface.vertices, surface.faces) == characteristic
    assert component_count(surface.vertices, surface.faces) == parts


def test_poisson_height_of_a_disc_is_a_hemisphere():
    columns, rows = pixel_centers(200)
    distance = 80.3 - np.hypot(columns - 100.2, rows - 99.9)
    height = solve_poisson(distance.astype(np.float32))
    exact = np.maximum(80.3**2 - (80.3 - distance) ** 2, 0)
    assert np.abs(height - exact).max() < 0.003 * 80.3**2


def test_disc_becomes_a_smooth_lens_and_nothing_steps():
    """The shape is known in closed form: u = R^2 - r^2, flattened; so are its normals."""
    surface, config = relief_of(disc), ReliefConfig()
    x, y, z = surface.vertices.astype(np.float64).T
    u = 0.25 - x * x - y * y
    bound = config.flattening**2 * 0.5 / 2
    height = config.roundness * np.sqrt(np.maximum(u / (1 + u / bound), 0))
    away = np.abs(z) > 0.05  # nearer the rim a height says nothing
    assert np.abs(np.abs(z) - height)[away].max() < 2e-3
    slope = (config.roundness / (1 + u / bound)) ** 2
    exact = np.stack([x * slope, y * slope, z], axis=1)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    cosine = (vertex_normals(surface.vertices, surface.faces) * exact).sum(axis=1)
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert np.median(angles) < 0.6
    assert np.quantile(angles, 0.99) < 2.5
    assert 0.35 < np.ptp(z) < 0.45  # no ball


def test_narrow_parts_are_round_and_broad_ones_flat():
    bar = np.zeros((512, 512))
    bar[20:490, 240:272] = 1
    extent = np.ptp(relief(bar).vertices, axis=0)
    assert 0.7 < extent[2] / extent[0] < 1.1
    extent = np.ptp(relief_of(full).vertices, axis=0)
    assert extent[2] < 0.45


def test_antenna_of_three_pixels_is_not_lost():
    alpha = (disc(1024, 0.28, (0.5, 0.6)) * 255).astype(np.uint8)
    cv2.line(alpha, (512, 330), (650, 20), 255, 3, cv2.LINE_AA)
    surface = relief(alpha / 255.0)
    assert surface.appearance.frame.scale > 850  # from the disc's bottom to the antenna's tip
    assert component_count(surface.vertices, surface.faces) == 1
    assert outline_overlap(surface, alpha / 255.0) > 0.99


def test_shading_moves_the_front_along_z_only_and_a_little():
    columns, rows = pixel_centers(512)
    folds = 0.5 + 0.3 * np.sin(columns / 512 * 2 * np.pi * 20)
    plain = relief_of(disc)
    folded = relief(disc(), np.repeat(folds[..., None], 3, axis=2))
    assert np.array_equal(plain.faces, folded.faces)
    # Undo centring and scaling: the back is the same in both.
    back = plain.vertices[:, 2] < -0.1
    shift = (folded.vertices - plain.vertices)[back].mean(axis=0)
    moved = folded.vertices - plain.vertices - shift
    assert np.abs(moved[:, :2]).max() < 1e-5
    assert np.abs(moved[plain.vertices[:, 2] < 1e-4, 2]).max() < 1e-5
    assert 1e-3 < np.abs(moved[:, 2]).max() < 1e-2


def test_pixel_noise_makes_no_spikes():
    colors = np.random.default_rng(0).random((512, 512, 3))
    noisy, plain = relief(disc(), colors), relief_of(disc)
    cosine = (
        vertex_normals(noisy.vertices, noisy.faces) * vertex_normals(plain.vertices, plain.faces)
    ).sum(axis=1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 15


def test_crumbs_are_dropped_and_parts_kept():
    alpha = two_discs()
    alpha[5:7, 5:7] = 1
    with_crumb, without = relief(alpha), relief_of(two_discs)
    assert np.array_equal(with_crumb.vertices, without.vertices)


def noise(threshold: float) -> np.ndarray:
    return (np.random.default_rng(0).random((96, 96)) > threshold).astype(float)


HOSTILE = {
    "one pixel": np.pad(np.ones((1, 1)), 40),
    "one pixel in the corner": np.pad(np.ones((1, 1)), ((0, 63), (0, 63))),
    "picture of one pixel": np.ones((1, 1)),
    "two pixels": np.pad(np.ones((1, 2)), 20),
    "hairline": np.pad(np.ones((1, 90)), ((30, 60), (3, 3))),
    "diagonal of pixels": np.eye(64),
    "half noise": noise(0.5),
    "dust": noise(0.97),
    "checkers": np.indices((64, 64)).sum(axis=0) % 2 * 1.0,
    "soft ramp": np.tile(np.linspace(0, 1, 128), (128, 1)),
    "just opaque enough": np.full((64, 64), 128 / 255),
    "squares that touch at a corner": np.kron(np.eye(2), np.ones((60, 60))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_masks_give_a_valid_body(name):
    surface = relief(HOSTILE[name])
    assert np.isfinite(surface.vertices).all()
    assert is_closed_and_oriented(surface.faces)
    assert face_areas(surface.vertices, surface.faces).min() > 0
    assert signed_volume(surface.vertices, surface.faces) > 0
    assert np.ptp(surface.vertices, axis=0).max() == pytest.approx(1, abs=1e-6)


def test_diagonal_of_pixels_is_one_part():
    surface = relief(HOSTILE["diagonal of pixels"])
    assert component_count(surface.vertices, surface.faces) == 1


@pytest.mark.parametrize("alpha", [np.zeros((64, 64)), np.full((64, 64), 0.4)])
def test_refuses_a_picture_without_subject(alpha):
    with pytest.raises(ForegroundError, match="more than half opaque"):
        relief(alpha)


def test_says_that_it_is_a_preview():
    report = Report()
    ReliefBackend().generate([cut_out(disc(64))], None, report)
    assert any("preview, not a reconstruction" in note for note in report.notes)


def digest(surface: Surface) -> str:
    colors = surface.appearance.sample(
        surface.vertices, vertex_normals(surface.vertices, surface.faces)
    ).base_color
    parts = (surface.vertices, surface.faces, colors)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_same_bytes_in_another_process_with_one_thread():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import cv2; cv2.setNumThreads(1)\n"
        "import sys; sys.path[:0] = sys.argv[1].split('|')\n"
        "from test_relief_shape import digest, relief_of, words\n"
        "print(digest(relief_of(words)))"
    )
    folders = [__file__.rsplit("/", 1)[0], *sys.path]
    other = subprocess.run(
        [sys.executable, "-c", code, "|".join(folders)], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == digest(relief_of(words))


def test_silhouette_places_the_outline_between_grid_points():
    """The level is the distance to the circle within a tenth of a cell, all around."""
    from relief_backend.silhouette import trace_silhouette

    silhouette: Silhouette = trace_silhouette(disc().astype(np.float32), ReliefConfig())
    j, i = np.nonzero(np.abs(silhouette.level) < 0.7)
    column = silhouette.left + i * silhouette.cell
    row = silhouette.bottom - j * silhouette.cell
    exact = (0.4 * 512 - np.hypot(column - 256, row - 256)) / silhouette.cell
    assert np.abs(silhouette.level[j, i] - exact).max() < 0.1
