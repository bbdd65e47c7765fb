"""The embedded default, measured: seconds, and how true the front view is to the picture.

    python benchmarks/relief.py [--check] [--write]

Times are medians of three in a warm process (kernels compiled, caches filled). Quality is taken
from the written GLB: loaded again and rendered from the front without light.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from table import Figure, finish, median_seconds, parser

from onelook.asset.load import load_glb
from onelook.engine import Engine
from onelook.foreground.extract import extract_foreground
from onelook.options import Options
from onelook.render.camera import orthographic_camera
from onelook.render.shade import render

ROOT = Path(__file__).parent.parent
VIEW = 512  # pixels of the compared views
SMALL = Options(model="relief", texture_size=1024, decimation_target=50_000, generate_video=False)
SMALL_WORDS = [
    "--texture_size",
    "1024",
    "--decimation_target",
    "50000",
    "--no-generate_video",
    "-q",
]


def main() -> int:
    arguments = parser(__doc__.splitlines()[0]).parse_args()
    engine = Engine(device="cpu")
    engine.warm_up()
    examples = sorted(p for p in (ROOT / "examples").iterdir() if p.suffix in (".png", ".jpg"))
    with tempfile.TemporaryDirectory() as folder:
        figures = _times(engine, examples[0], Path(folder))
        for picture in examples:
            figures += _quality(engine, picture, Path(folder))
    return finish("relief", figures, arguments)


def _times(engine: Engine, picture: Path, folder: Path) -> list[Figure]:
    command = Path(sys.executable).with_name("onelook")
    small_command = [command, picture, "-o", folder, *SMALL_WORDS]

    def run(words: list) -> None:
        subprocess.run(words, check=True, capture_output=True)

    every_file = Options(model="relief", return_no_background=True)
    return [
        Figure(
            "default options, all three files",
            median_seconds(lambda: engine.generate(picture, every_file, folder)),
            "s",
            at_most=25,
        ),
        Figure(
            "1024 texture, 50k faces, no video",
            median_seconds(lambda: engine.generate(picture, SMALL, folder)),
            "s",
            at_most=3,
        ),
        Figure("the same as a command", median_seconds(lambda: run(small_command)), "s", at_most=3),
        Figure(
            "onelook --help", median_seconds(lambda: run([command, "--help"])), "s", at_most=0.5
        ),
    ]


def _quality(engine: Engine, picture: Path, folder: Path) -> list[Figure]:
    result = engine.generate(picture, Options(model="relief", generate_video=False), folder)
    asset = load_glb(result.files["model_file"])
    overlap, decibels = compare_front(asset, extract_foreground(picture).image)
    edges = np.sort(
        _weld(asset.vertices, asset.faces)[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1
    )
    _, uses = np.unique(edges, axis=0, return_counts=True)
    return [
        Figure(f"{picture.stem}: silhouette IoU", overlap, at_least=0.98),
        Figure(f"{picture.stem}: PSNR inside", decibels, "dB", at_least=30),
        Figure(f"{picture.stem}: edges without two faces", int((uses != 2).sum()), at_most=0),
    ]


def compare_front(asset, cut_out: np.ndarray) -> tuple[float, float]:
    """(silhouette IoU, PSNR in dB inside both silhouettes) of the front view and the cut-out.

    cut_out (S, S, 4) uint8. The view shows the asset's unit box; the cut-out is scaled and shifted
    onto it, first by the two bounding boxes, then by the registration that fits the outlines best.
    """
    view = render(asset, orthographic_camera(half_height=0.55), VIEW, VIEW, unlit=True)
    silhouette = view[..., 3].astype(np.float32) / 255
    placed = _register(cut_out, silhouette)
    inside_view, inside_picture = silhouette >= 0.5, placed[..., 3] >= 127.5
    both = inside_view & inside_picture
    overlap = both.sum() / (inside_view | inside_picture).sum()
    error = view[both][:, :3].astype(np.float64) - placed[both][:, :3]
    return float(overlap), float(10 * np.log10(255**2 / max((error**2).mean(), 1e-9)))


def _register(cut_out: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """The cut-out drawn over the view: (VIEW, VIEW, 4) float32, 0..255."""
    start = _box_transform(cut_out[..., 3] / 255.0, silhouette)
    inverse = cv2.invertAffineTransform(start)
    scale = inverse[0, 0]
    sharp = cut_out.astype(np.float32)
    if scale > 1:  # the picture is finer than the view: average what falls into a pixel
        sharp = cv2.GaussianBlur(sharp, (0, 0), 0.35 * scale)
    alpha = np.ascontiguousarray(sharp[..., 3]) / 255
    settle = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-7)
    _, warp = cv2.findTransformECC(
        silhouette, alpha, inverse.astype(np.float32), cv2.MOTION_AFFINE, settle, None, 5
    )
    return cv2.warpAffine(sharp, warp, (VIEW, VIEW), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _box_transform(alpha: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    (top, left, bottom, right), (top_, left_, bottom_, right_) = _box(alpha), _box(silhouette)
    scale = max(bottom_ - top_, right_ - left_) / max(bottom - top, right - left)
    shift_x = (left_ + right_) / 2 - scale * (left + right) / 2
    shift_y = (top_ + bottom_) / 2 - scale * (top + bottom) / 2
    return np.array([[scale, 0, shift_x], [0, scale, shift_y]])


def _box(alpha: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(alpha >= 0.5)
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def _weld(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces over positions instead of over vertices that UV seams have repeated."""
    _, position = np.unique(vertices, axis=0, return_inverse=True)
    return position.reshape(-1)[faces]


if __name__ == "__main__":
    sys.exit(main())
