"""InstantMesh in a process of its own, for programs that isolate it: cut-out in, OBJ out.

    python -m instantmesh_backend.worker --input_image X.png --output_mesh Y.obj

The picture is an RGBA cut-out, the subject centred; nothing is removed and nothing framed here. The
OBJ has 8-bit vertex colours and the original's axes: z up and mirrored along z, so that a host made
for the original finds what it expects. With `--export_texmap` it has a texture instead, in an MTL
and a PNG of its name beside it, and as the original's is it then not mirrored.
`6_views_<name>.png` holds the six views.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated. The last line on
stderr says what went wrong, and then none of these files exists.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onelook.errors import OnelookError, OptionError, OutputError, PictureError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from instantmesh_backend.extract_mesh import ExtractedMesh
    from instantmesh_backend.pipeline import InstantMeshPipeline

    Array = np.ndarray

DEFAULT_CONFIG = Path("instantmesh/configs/instant-mesh-large.yaml")
MOST_STEPS = 1000  # as many as the network was trained with


def main(argv: list[str] | None = None) -> int:
    """Run the worker with `argv` (default: the process's); returns the exit code."""
    arguments = _parse(argv)
    try:
        run(arguments)
        return 0
    except OnelookError as error:
        problem, code = str(error), 1
    except KeyboardInterrupt:
        problem, code = "interrupted", 130
    except SystemExit as error:
        problem, code = "terminated", error.code
    except Exception as error:
        traceback.print_exc()
        problem, code = f"failed unexpectedly: {type(error).__name__}: {error}", 1
    print(f"instantmesh worker: error: {' '.join(problem.split())}", file=sys.stderr)
    return code


def run(arguments: argparse.Namespace) -> None:
    """Raises a named error of `onelook.errors`; then none of the files exists."""
    from onelook.progress import progress_report

    with _staged(*_output_paths(arguments)) as (views_file, mesh_file, *texture_files):
        picture = read_cutout(arguments.input_image)  # before anything heavy is imported
        from instantmesh_backend.pipeline import STEP_SHARES
        from instantmesh_backend.preparation import write_views

        with progress_report("instantmesh") as report:
            report.plan({"open weights": 3, **STEP_SHARES, "write": 3 if texture_files else 1})
            with report.step("open weights"):
                pipeline = open_pipeline(arguments.config_path)
            sample = pipeline.run(
                picture, arguments.seed, arguments.num_inference_steps, report=report
            )
            with report.step("write"):
                write_views(sample.views, views_file)
                if texture_files:
                    stem = arguments.output_mesh.stem
                    write_textured_obj(sample.mesh, stem, mesh_file, *texture_files)
                else:
                    write_mirrored_obj(sample.mesh, mesh_file)


def read_cutout(path: Path) -> Image.Image:
    """An RGBA picture as it is.

    Raises PictureError for any other file, ForegroundError where every pixel is transparent.
    """
    from PIL import Image

    from instantmesh_backend.preparation import require_subject
    from onelook.foreground.decode import decode_picture

    pixels = decode_picture(path)  # refuses what is damaged, too large or too small
    with Image.open(path) as picture:
        mode, kind = picture.mode, picture.format
    if mode != "RGBA":
        raise PictureError(
            f"the input image must be an RGBA cut-out, got a {kind} of mode {mode}; remove its"
            " background and save it as PNG with an alpha channel"
        )
    cutout = Image.fromarray(pixels)
    require_subject(cutout)
    return cutout


def open_pipeline(config_path: Path | None) -> InstantMeshPipeline:
    """The model that a yaml file of the original describes; None for the large mesh model.

    Files that are not where the yaml says are those of that name in the weights manifest.
    Raises WeightsError when one is missing, damaged or of another model.
    """
    from instantmesh_backend.config import RECONSTRUCTION
    from instantmesh_backend.original_config import find_file, find_weights, read_original_config
    from instantmesh_backend.pipeline import VARIANT, InstantMeshPipeline
    from onelook.weights.locate import checkpoint_folder

    if config_path is None and DEFAULT_CONFIG.is_file():
        config_path = DEFAULT_CONFIG
    if config_path is None:
        config = RECONSTRUCTION[VARIANT]
        unet, model = map(find_weights, ("diffusion_pytorch_model.bin", "instant_mesh_large.ckpt"))
    else:
        original, folder = read_original_config(config_path), config_path.parent
        config = original.reconstruction
        unet, model = (find_file(p, folder) for p in (original.unet_path, original.model_path))
    zero123plus = checkpoint_folder("zero123plus-v1.2")
    return InstantMeshPipeline.open(zero123plus, unet, model, config)


def mirrored(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """InstantMesh's own frame -> the original's OBJ: mirrored along z, the surface still outward.

    vertices (N, 3), faces (M, 3) -> the same shapes.
    """
    import numpy as np

    return vertices * np.array([1, 1, -1], vertices.dtype), faces[:, ::-1]


def write_mirrored_obj(mesh: ExtractedMesh, path: Path) -> None:
    """Vertices, their colours in 8 bits (cut off, not rounded) and faces as OBJ, by trimesh."""
    import numpy as np
    import trimesh

    vertices, faces = mirrored(mesh.vertices.cpu().numpy(), mesh.faces.cpu().numpy())
    colors = (255 * mesh.vertex_colors.cpu().numpy()).astype(np.uint8)
    made = trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)
    path.write_text(made.export(file_type="obj"), "utf-8")


def write_textured_obj(mesh: ExtractedMesh, stem: str, obj: Path, mtl: Path, png: Path) -> None:
    """OBJ, material and texture, which name each other as <stem>.mtl and <stem>.png."""
    from instantmesh_backend.obj_export import textured_obj

    made = textured_obj(mesh, stem)
    obj.write_bytes(made.obj)
    mtl.write_bytes(made.mtl)
    png.write_bytes(made.png)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m instantmesh_backend.worker",
        description="One RGBA cut-out in, an OBJ with its colours and six views out.",
    )
    add = parser.add_argument
    add("--input_image", type=Path, required=True, help="RGBA PNG, background removed, centred")
    add("--output_mesh", type=Path, required=True, help="OBJ file to write")
    add("--name", default="obj", help="of the six views' file, 6_views_<name>.png")
    add(
        "--config_path",
        type=Path,
        help="yaml file of the original; default: ./instantmesh/configs/instant-mesh-large.yaml if"
        " it is there, else the large mesh model of the weights folder",
    )
    add("--save_dir", type=Path, help="folder of the six views; default: that of the mesh")
    add("--num_inference_steps", type=int, default=75, help="sampling steps of the six views")
    add("--seed", type=int, default=42, help="same seed and same device, same mesh")
    add(
        "--export_texmap",
        action="store_true",
        help="a texture in place of vertex colours: an MTL and a PNG beside the OBJ, of its name;"
        " as in the original, it is not mirrored then",
    )
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.num_inference_steps <= MOST_STEPS:
        parser.error(f"argument --num_inference_steps: must be from 1 to {MOST_STEPS}")
    if not 0 <= arguments.seed < 2**63:
        parser.error("argument --seed: must be from 0 to 2^63 - 1")
    if not arguments.name or Path(arguments.name).name != arguments.name:
        parser.error("argument --name: must be a part of a file's name, without folders")
    return arguments


def _output_paths(arguments: argparse.Namespace) -> list[Path]:
    """The six views, the mesh, and with a texture its material and its picture."""
    mesh: Path = arguments.output_mesh
    paths = [(arguments.save_dir or mesh.parent) / f"6_views_{arguments.name}.png", mesh]
    if arguments.export_texmap:
        paths += [mesh.with_suffix(".mtl"), mesh.with_suffix(".png")]
    files = [arguments.input_image, *paths]
    if len({path.resolve() for path in files}) < len(files):
        texture = ", its MTL, its PNG" if arguments.export_texmap else ""
        raise OptionError(
            f"the input image, the mesh{texture} and the six views must be different files; choose"
            " another --output_mesh or --name"
        )
    return paths


@contextmanager
def _staged(*paths: Path) -> Iterator[list[Path]]:
    """Files beside `paths` to write, which take their places when all went well; else nothing is
    left, not even what an earlier run had put there.

    Raises OutputError when a folder cannot be written, before any work.
    """
    staged = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    created: list[Path] = []
    try:
        for path, part in zip(paths, staged, strict=True):
            created += _make_folder(path.parent)
            path.unlink(missing_ok=True)
            part.touch()
        yield staged
        for path, part in zip(paths, staged, strict=True):
            part.replace(path)
    except BaseException as error:
        for path in (*staged, *paths):
            with suppress(OSError):
                path.unlink()
        for folder in created:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise OutputError(
                f"the output folder cannot be written ({error.strerror}); choose another"
            ) from error
        raise


def _make_folder(folder: Path) -> list[Path]:
    """Make it and its parents; returns those that are new, innermost first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _terminate(_signal: int, _frame: object) -> None:
    raise SystemExit(143)  # files on the way are removed then


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
