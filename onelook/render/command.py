"""`onelook render MESH`: a film, a preview or eight views of any mesh file."""

from __future__ import annotations

import argparse
from pathlib import Path

from onelook.errors import OptionError, OutputError

SIZES, SECONDS, SAMPLES = (16, 4096), (0.1, 60.0), (1, 8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `onelook render`."""
    parser.add_argument(
        "mesh", type=Path, metavar="MESH", help="a .glb, .gltf, .obj, .ply or .stl file"
    )
    parser.add_argument("--video", type=Path, help="turntable to write; .mp4, .webm, .gif or .webp")
    parser.add_argument(
        "--preview", type=Path, help="picture to write, with transparent background; .png"
    )
    parser.add_argument("--contact_sheet", type=Path, help="eight views to write; .png")
    parser.add_argument(
        "--size",
        type=int,
        default=512,
        help="pixels of video and preview, and of two views side by side (default: 512)",
    )
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="length of the video (default: 4)"
    )
    parser.add_argument(
        "--supersample",
        type=int,
        default=2,
        metavar="N",
        help="N x N samples a pixel in the video (default: 2)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: auto)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only file names")


def run(arguments: argparse.Namespace) -> int:
    """Make the files that are asked for; returns the exit code.

    Raises OptionError for wrong arguments, before anything is read; SurfaceError for a mesh that
    cannot be used, OutputError for a file that cannot be written.
    """
    film_format = _checked(arguments)

    from onelook.asset.load import fitted, load_mesh
    from onelook.foreground.png import write_png
    from onelook.kernels import resolve_device
    from onelook.progress import progress_report
    from onelook.render.film import write_turntable
    from onelook.render.scene import RenderScene
    from onelook.render.turntable import contact_sheet, preview

    device = resolve_device(arguments.device)
    size, made = arguments.size, []
    with progress_report(arguments.mesh.name, arguments.quiet) as report:
        report.plan({"read": 30, "preview": 1, "contact sheet": 2, "video": 40})
        with report.step("read"):
            asset = fitted(load_mesh(arguments.mesh, device=device))
        scene = RenderScene(asset, device)
        if arguments.preview:
            with report.step("preview"):
                write_png(preview(scene, size), arguments.preview)
            made.append(arguments.preview)
        if arguments.contact_sheet:
            with report.step("contact sheet"):
                write_png(contact_sheet(scene, max(1, size // 2)), arguments.contact_sheet)
            made.append(arguments.contact_sheet)
        if arguments.video:
            with report.step("video"):
                write_turntable(
                    scene,
                    arguments.video,
                    size=size,
                    format=film_format,
                    seconds=arguments.seconds,
                    supersample=arguments.supersample,
                    report=report,
                )
            made.append(arguments.video)
    for path in made:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    if not arguments.quiet:
        print(f"{arguments.mesh.name}: {len(asset.faces)} faces")
    return 0


def _checked(arguments: argparse.Namespace) -> str:
    """The video's format, after checking what can be checked without reading the mesh."""
    outputs = (arguments.video, arguments.preview, arguments.contact_sheet)
    if not any(outputs):
        raise OptionError("nothing to do: name a file with --video, --preview or --contact_sheet")
    for name, value, (low, high) in (
        ("size", arguments.size, SIZES),
        ("seconds", arguments.seconds, SECONDS),
        ("supersample", arguments.supersample, SAMPLES),
    ):
        if not low <= value <= high:
            raise OptionError(f"{name} must be from {low} to {high}, got {value}")
    for name in ("preview", "contact_sheet"):
        path = getattr(arguments, name)
        if path and path.suffix.lower() != ".png":
            raise OptionError(f"{name} must be a file ending in .png, got {path.suffix!r}")
    for path in filter(None, outputs):
        if not path.absolute().parent.is_dir():
            raise OutputError("the folder of an output file does not exist; create it first")
    return _film_format(arguments.video, arguments.size) if arguments.video else ""


def _film_format(video: Path, size: int) -> str:
    formats = ("mp4", "webm", "gif", "webp")
    format = video.suffix.lower().removeprefix(".")
    if format not in formats:
        raise OptionError(
            f"video must be a file ending in .mp4, .webm, .gif or .webp, got {video.suffix!r}"
        )
    if size % 2 and format in ("mp4", "webm"):
        raise OptionError(f"size must be an even number for {format}, got {size}")
    return format
