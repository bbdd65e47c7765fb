"""The command line: `onelook IMAGE... -o OUT [options]` and a few commands beside it.

`--help` is made from `onelook/options.py`. Nothing heavy is imported before it is needed. Exit
codes: 0 all pictures done, 1 at least one failed, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from onelook import __version__
from onelook.errors import OnelookError, OptionError
from onelook.options import Options, option_fields, parse_options
from onelook.setup_arguments import add_setup_arguments

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FILE_MEANINGS = {
    "model_file": "3D model",
    "video": "turntable video",
    "no_background_image": "picture without background",
    "preview_image": "preview",
    "contact_sheet": "eight views",
    "gaussian_file": "3D Gaussians",
    "views_image": "six views",
    "frames_file": "views of the field",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line with `argv` (default: the process's); returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(argv[0]) if argv else None
    try:
        return command(argv[1:]) if command else generate_command(argv)
    except OnelookError as error:
        print(f"onelook: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print("onelook: interrupted", file=sys.stderr)
        return 130


def generate_command(argv: list[str]) -> int:
    """Pictures in, assets out; a picture that fails does not stop the others."""
    arguments = _parse(_generate_parser(), argv)
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in Options.__dataclass_fields__ and value is not None
    }
    options = parse_options(given)
    pictures = _expanded(arguments.pictures)
    if arguments.views and len(pictures) > 1:
        raise OptionError("--images belongs to one picture, and several were given")
    signal.signal(signal.SIGTERM, _terminate)

    from onelook.engine import Engine

    engine = Engine(arguments.device, arguments.vram, arguments.weights)
    failed = 0
    for picture, name in zip(pictures, _output_names(pictures), strict=True):
        try:
            _generate_one(engine, picture, name, options, arguments)
        except OptionError:
            raise  # wrong for every picture
        except OnelookError as error:
            failed += 1
            print(f"onelook: error: {picture}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _terminate(number: int, _frame) -> None:
    """Leave as after Ctrl-C, through every clean-up on the way."""
    print("onelook: interrupted", file=sys.stderr)
    sys.exit(128 + number)


def _generate_one(engine, picture: Path, name: str, options: Options, arguments) -> None:
    from onelook.progress import progress_report

    with progress_report(picture.name, arguments.quiet) as report:
        result = engine.generate(picture, options, arguments.output, name, report, arguments.views)
    for key, path in result.files.items():
        if path is not None:
            size, kind = result.metrics[f"megabytes.{key}"], path.suffix[1:].upper()
            print(f"{path}  {FILE_MEANINGS[key]} ({kind}), {size:.1f} MB")
    if not arguments.quiet:
        seconds, faces = result.metrics["seconds.total"], result.metrics.get("faces", 0)
        print(f"{picture.name}: {seconds:.1f} s, {faces} faces, seed {options.seed}")


def _expanded(places: list[Path]) -> list[Path]:
    """The pictures, with a folder replaced by those in it, in the order of their names.

    Raises OptionError for a folder without pictures.
    """
    pictures: list[Path] = []
    for place in places:
        if not place.is_dir():
            pictures.append(place)
            continue
        inside = sorted(p for p in place.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if not inside:
            raise OptionError(
                f"the folder {place.name} holds no picture ({', '.join(PICTURE_SUFFIXES)})"
            )
        pictures += inside
    return pictures


def _output_names(pictures: list[Path]) -> list[str]:
    """One name per picture: its stem, numbered where two pictures share one."""
    names: list[str] = []
    for picture in pictures:
        stem, number = picture.stem, 1
        while stem in names:
            number += 1
            stem = f"{picture.stem}-{number}"
        names.append(stem)
    return names


def _generate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onelook",
        usage="onelook IMAGE... -o OUT [options]",
        description="One picture in, a textured 3D asset out: GLB, turntable video, cut-out.",
        epilog=f"Commands: onelook {' | '.join(sorted(COMMANDS))} (each with --help).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "pictures", nargs="+", type=Path, metavar="IMAGE", help="picture files, or folders of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the files"
    )
    parser.add_argument(
        "--images",
        dest="views",
        nargs="+",
        type=Path,
        default=(),
        metavar="IMAGE",
        help="further pictures of the object in the one IMAGE; trellis only, others ignore them",
    )
    add_setup_arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only file names")
    parser.add_argument("--version", action="version", version=f"onelook {__version__}")
    group = parser.add_argument_group("options")
    for option in option_fields():
        _add_option(group, option)
    return parser


def _add_option(group, option) -> None:
    limits, default = option.metadata, option.default
    help = option.metadata["help"].replace("%", "%%")
    if isinstance(default, bool):
        group.add_argument(
            f"--{option.name}",
            action=argparse.BooleanOptionalAction,
            help=f"{help} (default: {'on' if default else 'off'})",
        )
        return
    domain = ", ".join(limits["choices"]) or f"{limits['minimum']}..{limits['maximum']}"
    domain += ", even" if limits["even"] else ""
    group.add_argument(
        f"--{option.name}",
        metavar=type(default).__name__.upper(),
        help=f"{help} [{domain}] (default: {default})",
    )


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse with `-` and `_` alike in option names, and a suggestion for a misspelt one."""
    known = [flag for action in parser._actions for flag in action.option_strings]
    argv = [_canonical(word, known) for word in argv]
    arguments, unknown = parser.parse_known_args(argv)
    for word in unknown:
        close = difflib.get_close_matches(word.split("=")[0], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else "; see onelook --help"
        raise OptionError(f"there is no option {word.split('=')[0]}{hint}")
    return arguments


def _canonical(word: str, known: list[str]) -> str:
    name, equals, value = word.partition("=")
    by_spelling = {flag.replace("_", "-"): flag for flag in known if flag.startswith("--")}
    return by_spelling.get(name.replace("_", "-"), name) + equals + value


def warmup_command(argv: list[str]) -> int:
    """Compile the kernels into the cache."""
    import time

    argparse.ArgumentParser(
        prog="onelook warmup", description="Compile every kernel once, so that no request waits."
    ).parse_args(argv)
    from onelook.engine import Engine

    start = time.perf_counter()
    Engine().warm_up()
    print(f"kernels are ready, {time.perf_counter() - start:.1f} s")
    return 0


def module_command(name: str, argv: list[str]) -> int:
    """A command of another room: its module adds arguments and runs with what was given."""
    place, description = MODULE_COMMANDS[name]
    module = importlib.import_module(place)
    parser = argparse.ArgumentParser(
        prog=f"onelook {name}", description=description, allow_abbrev=False
    )
    module.add_arguments(parser)
    taken = getattr(module, "OPTIONS", ())
    if taken:
        group = parser.add_argument_group("options")
        for option in option_fields():
            if option.name in taken:
                _add_option(group, option)
    arguments = _parse(parser, argv)
    signal.signal(signal.SIGTERM, _terminate)
    return module.run(arguments)


def doctor_command(argv: list[str]) -> int:
    """Say what is installed here and what is missing."""
    argparse.ArgumentParser(
        prog="onelook doctor",
        description="Show device, versions, accelerated parts and weights; what each would bring.",
    ).parse_args(argv)
    from onelook.doctor import print_findings

    print_findings()
    return 0


def weights_command(argv: list[str]) -> int:
    """List, fetch and verify checkpoints."""
    from onelook.weights.commands import add_commands, run

    parser = argparse.ArgumentParser(
        prog="onelook weights", description="List, fetch and verify the models' checkpoints."
    )
    add_commands(parser)
    return run(parser.parse_args(argv))


MODULE_COMMANDS = {  # name -> module, which may name OPTIONS it takes, and what it is for
    "batch": ("onelook.batch.command", "Many pictures, on one machine or a Ray cluster."),
    "demo": ("onelook.demo.command", "A page to try it in a browser."),
    "render": ("onelook.render.command", "Pictures and films of a mesh: GLB, glTF, OBJ, PLY, STL."),
    "serve": ("onelook.service.command", "The REST service of one machine."),
    "texture": ("onelook.texture_command", "Paint an existing mesh after a picture of it."),
}
COMMANDS: dict[str, tuple[str, str, tuple[str, ...] | None]] = {
    "batch": ("onelook.batch.command", "Many pictures, on one machine or a Ray cluster.", None),
    "demo": ("onelook.demo.command", "A page to try it in a browser.", ()),
    "render": (
        "onelook.render.command",
        "Pictures and films of a mesh: GLB, glTF, OBJ, PLY or STL.",
        (),
    ),
    "serve": ("onelook.service.command", "The REST service of one machine.", ()),
    "texture": (
        "onelook.texture_command",
        "Paint an existing mesh after a picture of it, with TRELLIS.2.",
        (
            *("seed", "randomize_seed", "preprocess_image", "tex_slat_steps", "tex_slat_cfg"),
            *("texture_size", "texture_format", "geometry_compression"),
        ),
    ),
}
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "doctor": doctor_command,
    "warmup": warmup_command,
    "weights": weights_command,
    **{name: partial(module_command, name) for name in MODULE_COMMANDS},
}


if __name__ == "__main__":
    sys.exit(main())
