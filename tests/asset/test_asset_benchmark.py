"""The asset benchmark's own measures, on cases whose answers are known, and its quick run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from asset_quality import judge_layout
from helpers.solids import cube, grid_sheet, joined, moved
from mesh_quality import mean_distance, soundness, visible_area_lost

ROOT = Path(__file__).resolve().parents[2]


def test_the_quick_run_holds_its_targets():
    command = [sys.executable, ROOT / "benchmarks/asset.py", "--quick", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_solid_has_no_faults_and_each_fault_is_counted():
    vertices, faces = cube()
    found = soundness(faces)
    assert (found.crowded_edges, found.conflicts, found.loops) == (0, 0, [])
    assert (found.pinched_vertices, found.parts) == (0, 1)
    turned = faces.copy()
    turned[0] = turned[0, ::-1]
    assert soundness(turned).conflicts == 3
    assert soundness(faces[2:]).loops == [4]
    assert soundness(faces[1:]).loops == [3]
    fin = np.concatenate([faces, [[0, 1, 8]]])
    assert soundness(fin).crowded_edges == 1
    two = joined((vertices, faces), moved((vertices, faces), by=(1, 1, 1)))[1]
    assert soundness(two).parts == 2
    touching = np.where(two == 8, 7, two)  # the corner at (1, 1, 1) of both
    assert (soundness(touching).parts, soundness(touching).pinched_vertices) == (1, 1)


def test_a_cube_without_a_side_has_lost_a_sixth_of_its_visible_area():
    vertices, faces = cube()
    assert visible_area_lost((vertices, faces), (vertices, faces), "cpu", 6000) == 0
    lost = visible_area_lost((vertices, faces), (vertices, faces[2:]), "cpu", 6000)
    assert lost == pytest.approx(100 / 6, abs=1)


def test_mean_distance_of_two_parallel_sheets():
    sheet = grid_sheet(4)
    apart = moved(sheet, by=(0, 0, 0.1))
    assert mean_distance(apart, sheet, "cpu", 1000) == pytest.approx(0.1 / 2**0.5, rel=1e-4)


def test_overlaps_and_stretch_of_known_layouts():
    vertices, faces = grid_sheet(4)
    uvs = vertices[:, :2] + np.float32(0.5)
    whole = judge_layout(vertices, uvs, faces, 64)
    assert (whole.overlapped, whole.area) == (0, pytest.approx(1))
    assert whole.stretch == pytest.approx(1, abs=1e-6)
    wide = judge_layout(vertices * [4, 1, 1], uvs, faces, 64)
    assert wide.stretch == pytest.approx((17 / 2) ** 0.5 / 2, rel=1e-6)
    lower = np.array([[0, 0], [1, 0], [1, 0.5], [0, 0.5], [0, 0.25], [1, 0.25], [1, 1], [0, 1]])
    quads = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])  # a quarter in common
    flat = judge_layout(np.pad(lower, ((0, 0), (0, 1))), lower.astype(np.float32), quads, 64)
    diagonals = 64 * 16 - flat.overlapped  # centres exactly on a face's edge are in neither
    assert 0 <= diagonals <= 2 * 32
