"""`onelook texture MESH IMAGE -o OUT.glb`: an existing mesh, painted after a picture of it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from onelook import __version__
from onelook.backends import BackendEntry, Setup, choose_backend
from onelook.errors import OptionError, OutputError
from onelook.options import parse_options
from onelook.setup_arguments import add_setup_arguments

OPTIONS = (  # of onelook/options.py, those that the command takes
    "seed",
    "randomize_seed",
    "preprocess_image",
    "tex_slat_steps",
    "tex_slat_cfg",
    "texture_size",
    "texture_format",
    "geometry_compression",
)
RESOLUTIONS = (512, 1024, 1536)


def _load_trellis2(setup: Setup):
    from trellis2_backend.texturing import MeshTexturer

    return MeshTexturer(setup)


TEXTURERS = {
    "trellis2": BackendEntry(
        "TRELLIS.2: materials for the voxels of a given mesh",
        _load_trellis2,
        modules=("torch", "safetensors", "transformers"),
        weights=("trellis2-4b", "dinov3-vitl16", "trellis2-texturing"),
    )
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `onelook texture` beside OPTIONS."""
    parser.add_argument(
        "mesh", type=Path, metavar="MESH", help="a .glb, .gltf, .obj, .ply or .stl file, +Y up"
    )
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="a picture of the object, seen from the mesh's +Z"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="file to write; .glb"
    )
    parser.add_argument(
        "--resolution",
        type=int,
        default=1024,
        help="voxels along the longest side: 512, 1024 or 1536 (default: 1024)",
    )
    parser.add_argument(
        "--keep_uvs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="paint on the mesh's own UVs where they are good (default: on)",
    )
    add_setup_arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only file names")


def run(arguments: argparse.Namespace) -> int:
    """Make the file; returns the exit code.

    Raises OptionError for wrong arguments, before anything is read; a named error for a mesh or a
    picture that cannot be used, for weights that are missing, or a file that cannot be written.
    """
    given = {name: getattr(arguments, name) for name in OPTIONS}
    options = parse_options({name: value for name, value in given.items() if value is not None})
    options = options.with_drawn_seed()
    _check(arguments)

    from onelook.asset.export import write_model
    from onelook.asset.load import join_parts
    from onelook.asset.mesh_parts import read_parts
    from onelook.foreground.extract import extract_foreground
    from onelook.kernels import resolve_device
    from onelook.progress import progress_report

    device = resolve_device(arguments.device)
    with progress_report(arguments.mesh.name, arguments.quiet) as report:
        model = choose_backend("trellis2", 0, report, TEXTURERS, own_weights=arguments.weights)
        with report.step("open weights"):
            texturer = TEXTURERS[model].load(Setup(device, arguments.vram, arguments.weights))
        report.plan({"read": 2, "cut out": 3, **texturer.step_shares, "write model": 4})
        with report.step("read"):
            mesh = join_parts(read_parts(arguments.mesh))
        with report.step("cut out"):
            foreground = extract_foreground(arguments.image, options.preprocess_image)
        for sentence in foreground.notes:
            report.note(sentence)
        asset = texturer.texture(
            mesh,
            foreground,
            options,
            report,
            resolution=arguments.resolution,
            keep_uvs=arguments.keep_uvs,
        )
        with report.step("write model"):
            write_model(
                asset,
                arguments.output,
                texture_format=options.texture_format,
                geometry_compression=options.geometry_compression,
                extras={
                    "made_with": f"onelook {__version__}",
                    "model": model,
                    "seed": options.seed,
                    "resolution": arguments.resolution,
                    "options": {name: asdict(options)[name] for name in OPTIONS},
                },
            )
    print(f"{arguments.output}  {arguments.output.stat().st_size / 1e6:.1f} MB")
    if not arguments.quiet:
        figures = report.figures
        uvs = "its own UVs" if figures["own_uvs"] else "a new UV layout"
        seconds = sum(report.seconds.values())
        made = f"{figures['faces']} faces, {uvs}, seed {options.seed}"
        print(f"{arguments.mesh.name}: {seconds:.1f} s, {made}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """What can be checked without reading anything."""
    if arguments.resolution not in RESOLUTIONS:
        raise OptionError(f"resolution must be 512, 1024 or 1536, got {arguments.resolution}")
    if arguments.output.suffix.lower() != ".glb":
        raise OptionError(f"output must be a file ending in .glb, got {arguments.output.suffix!r}")
    if not arguments.output.absolute().parent.is_dir():
        raise OutputError("the folder of the output file does not exist; create it first")
