"""The asset pipeline, measured step by step on a damaged knot, and held against the plain recipe.

    python benchmarks/asset.py [--check] [--write] [--quick | --large] [--device cuda]

A rough trefoil of a million faces with an inner shell of as many, 40 floaters, 30 holes, fins,
duplicates and a sixth of its edges in conflict becomes an asset of 100k faces with 2048 x 2048
textures and a film of 120 frames. Seconds are medians of three in a warm process; memory is the
peak of a process of its own that does all of it once. asset_quality.py says how each figure of
quality is found. The plain recipe (plain_recipe.py) gets the knot without any damage, for it cannot
repair it, and makes no file and no film.

--quick is small and keeps only the targets of quality that hold at that size. --large measures
4 million faces to a million, with textures of 4096 x 4096. --device cuda runs the kernels there.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from asset_quality import (
    compare_with_field,
    judge_film,
    judge_layout,
    validator_messages,
)
from mesh_quality import mean_distance, soundness, surface_points, visible_area_lost
from meshes import damaged_knot, scramble_winding
from painted_field import PaintedField
from plain_recipe import DESCENT_STEPS, plain_recipe
from table import Figure, finish, parser

from onelook.asset.asset import Asset
from onelook.asset.bake import bake
from onelook.asset.build import build_asset
from onelook.asset.clean import CleanMesh, clean
from onelook.asset.gltf import write_glb
from onelook.asset.normals import vertex_normals
from onelook.asset.simplify import simplify
from onelook.asset.texture_lookup import look_up
from onelook.asset.topology import is_closed
from onelook.asset.unwrap import Unwrapped, unwrap
from onelook.closest_point import ClosestPoint
from onelook.kernels import resolve_device
from onelook.render.film import write_turntable
from onelook.report import Report
from onelook.surface import Surface

Array = np.ndarray
Mesh = tuple[Array, Array]

FLIPPED = 0.094  # of the faces, at random: 17 % of the directed edges then conflict
HOLE_LIMIT = 400  # edges of the longest hole that is closed
STEPS = ("clean", "simplify", "unwrap", "bake", "textures + GLB", "turntable + MP4")
CUDA_SECONDS = 8


@dataclass(frozen=True)
class Size:
    """How large a measurement is. is_full: as large as the targets were set for."""

    outer_faces: int
    budget: int
    texture_size: int
    film_seconds: float = 4.0
    film_size: int = 512
    views: int = 20
    view_size: int = 512
    runs: int = 3
    plain_views: int = 100
    plain_view_size: int = 1024
    plain_steps: int = 8
    is_full: bool = True


FULL = Size(1_000_000, 100_000, 2048)
LARGE = Size(2_000_000, 1_000_000, 4096)
QUICK = Size(100_000, 10_000, 512, 0.8, 96, 4, 128, 1, 8, 128, 0, is_full=False)
WARM_UP = Size(20_000, 1_000, 64, 0.1, 16, is_full=False)  # smaller has no room for the holes
SECONDS = dict(zip(STEPS, (6, 2, 3, 6, 1, 10), strict=True))
ALL_SECONDS = 28


@dataclass(frozen=True)
class Made:
    """What the steps made of the raw mesh."""

    clean: CleanMesh
    unwrapped: Unwrapped
    asset: Asset


def main() -> int:
    arguments = _arguments()
    device = resolve_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.large:
            return finish("asset_large", _measure_large(Path(folder), device), arguments)
        size = QUICK if arguments.quick else FULL
        figures = _measure(size, Path(folder), device)
    print("load average:", *(f"{load:.1f}" for load in os.getloadavg()), file=sys.stderr)
    return finish("asset" if device == "cpu" else "asset_cuda", figures, arguments)


def _arguments():
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--quick", action="store_true", help="a small version, in seconds")
    made.add_argument("--large", action="store_true", help="4 M faces to 1 M, 4096 x 4096 texels")
    made.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")
    return made.parse_args()


def _measure(size: Size, folder: Path, device: str) -> list[Figure]:
    knot = damaged_knot(2 * size.outer_faces)
    raw = knot.vertices, scramble_winding(knot.faces, FLIPPED)
    field = PaintedField()
    _warm(folder, device)
    timings, made = [], None
    for _ in range(size.runs):
        report = Report()
        made = _make(raw, field, size, folder, report, device)
        timings.append(report.seconds)
    seconds = {name: statistics.median(run[name] for run in timings) for name in STEPS}
    figures = _told(_step_figures(size, seconds, device))
    figures += _told(_quality_of_clean(size, knot.sound, made.clean, device))
    figures += _told(_quality_of_shape(size, knot.sound, made, device))
    figures += _told(_quality_of_look(size, knot.sound, made.asset, field, folder, device))
    if size.is_full:
        peak = _one_run(raw, size, folder, device)[1]
        figures += _told([Figure("peak memory, all once", peak, "GB", at_most=2)])
        figures += _told([_unwrap_500k(made.clean)])
    return figures + _told(_plain(size, knot.sound, field, seconds, device))


def _told(figures: list[Figure]) -> list[Figure]:
    """The same figures, told at once: the whole takes minutes."""
    for figure in figures:
        print(figure.row(), file=sys.stderr, flush=True)
    return figures


def _make(
    raw: Mesh, field: PaintedField, size: Size, folder: Path, report: Report, device: str
) -> Made:
    """The steps of `build_asset`, files and film, with what lies between them at hand."""
    with report.step("clean"):
        sound = clean(*raw, device=device)
    with report.step("simplify"):
        vertices, faces = simplify(sound.vertices, sound.faces, size.budget)
    with report.step("unwrap"):
        unwrapped = unwrap(vertices, faces, size.texture_size)
        normals = vertex_normals(vertices, faces)[unwrapped.vertices_index]
    with report.step("bake"):
        textures = bake(
            vertices[unwrapped.vertices_index],
            normals,
            unwrapped.uvs,
            unwrapped.faces,
            Surface(sound.vertices, sound.faces, field),
            size.texture_size,
            device=device,
        )
    asset = Asset(
        vertices=vertices[unwrapped.vertices_index],
        normals=normals,
        uvs=unwrapped.uvs,
        faces=unwrapped.faces,
        textures=textures,
        is_closed=is_closed(faces),
    )
    _write(asset, size, folder, report, device)
    return Made(sound, unwrapped, asset)


def _write(asset: Asset, size: Size, folder: Path, report: Report, device: str) -> None:
    with report.step("textures + GLB"):
        write_glb(asset, folder / "asset.glb")
    with report.step("turntable + MP4"):
        write_turntable(
            asset,
            folder / "asset.mp4",
            size=size.film_size,
            seconds=size.film_seconds,
            device=device,
        )


def _warm(folder: Path, device: str) -> None:
    """Compile every kernel or load it from the cache."""
    knot = damaged_knot(2 * WARM_UP.outer_faces)
    _make((knot.vertices, knot.faces), PaintedField(), WARM_UP, folder, Report(), device)


def _step_figures(size: Size, seconds: dict[str, float], device: str) -> list[Figure]:
    timed = size.is_full and device == "cpu"
    total = None
    if size.is_full:
        total = ALL_SECONDS if device == "cpu" else CUDA_SECONDS
    figures = [
        Figure(name, seconds[name], "s", at_most=SECONDS[name] if timed else None) for name in STEPS
    ]
    return [*figures, Figure("all steps", sum(seconds.values()), "s", at_most=total)]


def _unwrap_500k(sound: CleanMesh) -> Figure:
    vertices, faces = simplify(sound.vertices, sound.faces, 500_000)
    start = time.perf_counter()
    unwrap(vertices, faces, 4096)
    return Figure("unwrap 500k faces, once", time.perf_counter() - start, "s", at_most=12)


def _quality_of_clean(size: Size, sound: Mesh, mesh: CleanMesh, device: str) -> list[Figure]:
    faults = soundness(mesh.faces)
    small = sum(loop <= HOLE_LIMIT for loop in faults.loops)
    lost = visible_area_lost(sound, (mesh.vertices, mesh.faces), device)
    return [
        Figure("clean: edges with three faces or more", faults.crowded_edges, at_most=0),
        Figure("clean: vertices where fans touch", faults.pinched_vertices, at_most=0),
        Figure("clean: directed edges in conflict", faults.conflicts, at_most=0),
        Figure(f"clean: open loops up to {HOLE_LIMIT} edges", small, at_most=0),
        Figure("clean: parts left (of 42)", faults.parts, at_most=1),
        Figure("clean: ray-visible area lost", lost, "%", at_most=0.5 if size.is_full else None),
    ]


def _quality_of_shape(size: Size, sound: Mesh, made: Made, device: str) -> list[Figure]:
    source = made.unwrapped.vertices_index
    vertices = np.empty((source.max() + 1, 3), np.float32)
    vertices[source] = made.asset.vertices
    faces = source[made.asset.faces]
    faults = soundness(faces)
    distance = mean_distance((vertices, faces), sound, device)
    layout = judge_layout(made.asset.vertices, made.asset.uvs, made.asset.faces, size.texture_size)
    wrong = faults.crowded_edges + faults.conflicts + len(faults.loops)
    off = 100 * abs(len(faces) / size.budget - 1)
    area, stretch, at_most = (0.5, 1.08, 1.0) if size.is_full else (None, None, None)
    return [
        Figure("simplify: off the budget", off, "%", at_most=1),
        Figure("simplify: faulty edges", wrong, at_most=0),
        Figure("simplify: mean distance, of the diagonal", 1e4 * distance, "1e-4", at_most),
        Figure("unwrap: overlapped texels", layout.overlapped, at_most=0),
        Figure("unwrap: UV area", layout.area, at_least=area),
        Figure("unwrap: stretch L2", layout.stretch, at_most=stretch),
    ]


def _quality_of_look(
    size: Size, sound: Mesh, asset: Asset, field: PaintedField, folder: Path, device: str
) -> list[Figure]:
    likeness = compare_with_field(asset, sound, field, size.views, size.view_size, device)
    film = judge_film(folder / "asset.mp4")
    frames = round(30 * size.film_seconds)
    figures = [
        Figure(
            f"bake: PSNR over {size.views} views",
            likeness.decibels,
            "dB",
            at_least=40 if size.is_full else 30,
        ),
        Figure("bake: PSNR of the worst view", likeness.worst, "dB"),
        Figure("bake: pixels left out at outlines", likeness.left_out, "%"),
        Figure("bake: roughness, mean error", _roughness_error(asset, sound, field)),
        Figure("film: frames", film.frames, at_most=frames, at_least=frames),
        Figure("film: change at the seam, of any other", film.seam, at_most=1.25),
        Figure("film: H.264, yuv420p, index first", int(film.plays), at_least=1),
        Figure("GLB", (folder / "asset.glb").stat().st_size / 1e6, "MB"),
    ]
    messages = validator_messages(folder / "asset.glb")
    if messages is not None:
        figures.append(Figure("GLB: messages of the validator", messages, at_most=0))
    return figures


def _roughness_error(asset: Asset, sound: Mesh, field: PaintedField) -> float:
    """Mean difference of the texture at points of the asset from the field at the nearest points
    of the full surface."""
    shape = asset.vertices, asset.faces
    points, face = surface_points(shape, 50_000)
    hits = ClosestPoint(*shape, "cpu").query(points)
    corners = asset.faces[hits.face]
    uvs = np.einsum("pk,pkc->pc", hits.barycentric, asset.uvs[corners])
    looked_up = look_up(asset.textures.metallic_roughness, uvs, repeat=False)[:, 1]
    full = ClosestPoint(*sound, "cpu")
    nearest = full.interpolate(sound[0], full.query(points))
    return float(np.abs(looked_up - field.sample(nearest, nearest).roughness).mean())


def _plain(
    size: Size, sound: Mesh, field: PaintedField, seconds: dict[str, float], device: str
) -> list[Figure]:
    plain = plain_recipe(
        sound,
        field,
        budget=size.budget,
        texture_size=size.texture_size,
        views=size.plain_views,
        view_size=size.plain_view_size,
        timed_steps=size.plain_steps,
    )
    averaged = sum(s for name, s in plain.seconds.items() if name != "gradient descent")
    same = sum(seconds[name] for name in ("simplify", "unwrap", "bake"))
    least = 8 if size.is_full else None
    likeness = compare_with_field(plain.asset, sound, field, size.views, size.view_size, device)
    figures = [Figure(f"plain: {name}", s, "s") for name, s in plain.seconds.items()]
    figures += [
        Figure("plain: PSNR, views averaged", likeness.decibels, "dB"),
        Figure(
            "plain, views averaged, by our same three steps", averaged / same, "times", None, least
        ),
        Figure(
            "plain, views averaged, by all our steps", averaged / sum(seconds.values()), "times"
        ),
    ]
    if "gradient descent" in plain.seconds:
        whole = averaged - plain.seconds["average"] + plain.seconds["gradient descent"]
        figures.append(
            Figure(
                f"plain, {DESCENT_STEPS} steps of descent, by all our steps",
                whole / sum(seconds.values()),
                "times",
                at_least=least,
            )
        )
    return figures


def _measure_large(folder: Path, device: str) -> list[Figure]:
    knot = damaged_knot(2 * LARGE.outer_faces)
    raw = knot.vertices, scramble_winding(knot.faces, FLIPPED)
    seconds, peak = _one_run(raw, LARGE, folder, device)
    return [
        *(Figure(name, s, "s") for name, s in seconds.items()),
        Figure("all steps", sum(seconds.values()), "s", at_most=120),
        Figure("peak memory", peak, "GB", at_most=6),
    ]


def _one_run(raw: Mesh, size: Size, folder: Path, device: str) -> tuple[dict[str, float], float]:
    """Seconds per step and peak GB of a process that gets the mesh from a file."""
    np.savez(folder / "raw.npz", vertices=raw[0], faces=raw[1])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_build_once, (folder, size, device))


def _build_once(folder: Path, size: Size, device: str) -> tuple[dict[str, float], float]:
    with np.load(folder / "raw.npz") as stored:
        surface = Surface(stored["vertices"], stored["faces"], PaintedField())
    report = Report()
    asset = build_asset(
        surface,
        decimation_target=size.budget,
        texture_size=size.texture_size,
        report=report,
        device=device,
    )
    _write(asset, size, folder, report, device)
    return report.seconds, _peak_gigabytes()


def _peak_gigabytes() -> float:
    """Of this process alone: getrusage also counts the process that started it, before exec."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
