"""`onelook weights list | pull | verify | path`."""

from __future__ import annotations

import argparse

from onelook.weights.lock import LockedRepository
from onelook.weights.manifest import Checkpoint


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the four commands; `run` carries out what it parses."""
    commands = parser.add_subparsers(dest="weights_command", required=True, metavar="COMMAND")
    commands.add_parser(
        "list", help="every checkpoint: what for, licence, size, whether it is here"
    )
    pull = commands.add_parser(
        "pull",
        help="fetch checkpoints into the weights folder",
        description="Fetch checkpoints, or all that a model needs. An interrupted pull goes on"
        " where it stopped. The lock file beside the weights keeps commit and sums.",
    )
    pull.add_argument("names", nargs="+", metavar="NAME", help="a checkpoint or a model")
    pull.add_argument(
        "--weights",
        metavar="PLACE",
        help="another repository in the same layout, owner/repository[@revision]",
    )
    pull.add_argument(
        "--update", action="store_true", help="take the newest commit, not the locked one"
    )
    pull.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    verify = commands.add_parser("verify", help="compare the files with the lock, byte for byte")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: everything pulled")
    path = commands.add_parser("path", help="print the weights folder, or a checkpoint's folder")
    path.add_argument("name", nargs="?", metavar="NAME", help="a checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Carry out a parsed command; returns the exit code. Raises WeightsError."""
    command = {"list": _list, "pull": _pull, "verify": _verify, "path": _path}
    return command[arguments.weights_command](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from onelook.weights.locate import missing_weights, weights_dir
    from onelook.weights.lock import read_lock
    from onelook.weights.manifest import manifest

    known, locked = manifest(), read_lock(weights_dir())
    missing = set(missing_weights(known.checkpoints))
    rows = [("NAME", "HERE", "SIZE", "COMMERCIAL", "GATED", "NEEDED BY", "LICENCE")]
    for name, one in known.checkpoints.items():
        needed_by = ", ".join(known.models_using(name)) or f"({one.purpose})"
        here = "no" if name in missing else "yes"
        rows.append(
            (
                name,
                here,
                _size(one, locked.get(one.repository)),
                one.commercial_use,
                one.gated,
                needed_by,
                one.licence,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print("commercial: yes, no, or ask = read the licence; unknown = nobody has looked it up")
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    from onelook.weights.manifest import checkpoint, expand_names
    from onelook.weights.pull import pull

    for name in expand_names(arguments.names):
        one = checkpoint(name)
        print(f"{name}: licence {one.licence}; commercial use: {one.commercial_use}")
    for pulled in pull(arguments.names, arguments.weights, arguments.update, arguments.quiet):
        fetched = f"fetched {pulled.fetched_bytes / 1e6:.1f} MB" if pulled.fetched_bytes else "here"
        print(f"{pulled.name}: complete, {fetched}, at {pulled.revision[:12]}, in {pulled.folder}")
        for note in pulled.notes:
            print(f"  note: {note}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from onelook.weights.verify import verify

    findings = verify(arguments.names)
    wrong = [one for one in findings if one.problem]
    for one in findings:
        print(f"{one.problem or 'ok'}: {one.repository}/{one.path}")
    if not findings:
        print("nothing has been pulled yet")
    elif wrong:
        print(
            f"{len(wrong)} of {len(findings)} files are not right; onelook weights pull mends them"
        )
    return 1 if wrong else 0


def _path(arguments: argparse.Namespace) -> int:
    from onelook.weights.locate import checkpoint_folder, weights_dir

    print(checkpoint_folder(arguments.name) if arguments.name else weights_dir())
    return 0


def _size(one: Checkpoint, locked: LockedRepository | None) -> str:
    """Size by the lock, else by the manifest; a plus sign where some weights are left out."""
    in_lock = [spec.choose(locked.files if locked else ()) for spec in one.files]
    if locked and all(in_lock):
        return (
            f"{sum(locked.files[path].bytes for found in in_lock for path in found) / 1e9:.2f} GB"
        )
    weights = [
        spec for spec in one.files if not spec.path.endswith((".json", ".txt", ".yaml", "*"))
    ]
    if not one.known_bytes:
        return "unknown"
    return f"{one.known_bytes / 1e9:.2f} GB{'' if all(spec.bytes for spec in weights) else '+'}"
