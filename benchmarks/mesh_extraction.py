"""Mesh extraction at full size: seconds and memory for 768 000 fine voxels at R = 256.

    python benchmarks/mesh_extraction.py [--check] [--write]

12 000 coarse voxels around a torus knot's surface, 64 fine ones in each, and seeded noise for
deformation, weights and colours. Times are the best of three in a warm process. Memory is the peak
resident size of a process of its own that loads the features from a file and extracts once.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from made_voxels import knot_features, knot_shell
from table import Figure, finish, parser

from trellis_backend.extract_mesh import extract_mesh

Array = np.ndarray
COARSE, RESOLUTION, VOXELS = 64, 256, 12_000


def main() -> int:
    arguments = parser(__doc__.splitlines()[0]).parse_args()
    coords, feats = made_features()
    mesh = extract_mesh(coords, feats, RESOLUTION)
    seconds = min(_seconds(coords, feats) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voxels.npz"
        np.savez(path, coords=coords.numpy(), feats=feats.numpy())
        peak = _peak_bytes(path)
    figures = [
        Figure("fine voxels", len(coords)),
        Figure("vertices", len(mesh.vertices)),
        Figure("faces", len(mesh.faces)),
        Figure("features to mesh", seconds, "s", at_most=6),
        Figure("peak memory of the process", peak / 1e9, "GB", at_most=2),
    ]
    return finish("mesh_extraction", figures, arguments)


def made_features() -> tuple[torch.Tensor, torch.Tensor]:
    """coords (768000, 3) int32 and feats (768000, 101) float32 of a (2, 3) torus knot's shell."""
    coarse = knot_shell(VOXELS, COARSE).astype(np.int64)
    fine = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    coords = (4 * coarse[:, None] + fine).reshape(-1, 3).astype(np.int32)
    feats = knot_features(coords, RESOLUTION)
    return torch.from_numpy(coords), torch.from_numpy(feats)


def _seconds(coords: torch.Tensor, feats: torch.Tensor) -> float:
    start = time.perf_counter()
    extract_mesh(coords, feats, RESOLUTION)
    return time.perf_counter() - start


def _peak_bytes(path: Path) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_extract_once, (path,))


def _extract_once(path: Path) -> int:
    with np.load(path) as stored:
        coords, feats = (torch.from_numpy(stored[name]) for name in ("coords", "feats"))
    extract_mesh(coords, feats, RESOLUTION)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
