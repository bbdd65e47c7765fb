"""Load once, generate many: one picture and options in, files out.

The way through the house: Foreground -> backend -> Surface -> Asset -> files. Files are written to
a staging folder beside their destination and moved there only when all of them are complete, so a
failed or cancelled run leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from onelook import __version__
from onelook.backends import BACKENDS, Backend, choose_backend
from onelook.errors import OptionError, OutputError
from onelook.options import Options
from onelook.report import Figure, Report

STEP_SHARES = {  # of the time of a run; only for the progress bar
    "cut out": 3,
    "shape": 5,
    "clean": 3,
    "simplify": 3,
    "unwrap": 25,
    "bake": 20,
    "write model": 10,
    "video": 40,
}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Result:
    """Files of one run (None where not asked for) and its figures.

    files has the keys no_background_image, video and model_file.
    """

    files: dict[str, Path | None]
    metrics: dict[str, Figure]


class Engine:
    """Keeps the loaded backends; holds nothing else between requests."""

    def __init__(self, device: str = "auto"):
        """device: "auto", "cpu", "cuda" or "cuda:N". Raises OptionError where it is not there."""
        from onelook.kernels import resolve_device

        self.device = resolve_device(device)
        self._loaded: dict[str, Backend] = {}

    def warm_up(self) -> None:
        """Compile or load every kernel and load the backend of model "auto"."""
        from onelook.warmup import warm_up

        warm_up(self)

    def generate(
        self,
        picture: Path | bytes,
        options: Options,
        out_dir: Path,
        name: str = "output",
        report: Report | None = None,
    ) -> Result:
        """Make the files `options` ask for: NAME.glb, NAME.mp4 and NAME_no_background.png.

        picture: a file or the bytes of one. Raises a named error of `onelook.errors` with a
        sentence for the user; then no file is left in `out_dir`.
        """
        report = report or Report()
        options = options.with_drawn_seed()
        if not (options.generate_model or options.generate_video or options.return_no_background):
            raise OptionError(
                "nothing to do: turn on generate_model, generate_video or return_no_background"
            )
        report.plan(STEP_SHARES)
        with _staging(Path(out_dir)) as staging:
            made = self._make_files(picture, options, staging, name, report)
            sizes = {key: path.stat().st_size for key, path in made.items()}
            files = {key: Path(out_dir) / path.name for key, path in made.items()}
            for key, path in made.items():
                os.replace(path, files[key])
        for key, size in sizes.items():
            report.figures[f"megabytes.{key}"] = round(size / 1e6, 3)
        keys = ("no_background_image", "video", "model_file")
        return Result({key: files.get(key) for key in keys}, _metrics(options, report))

    def _make_files(
        self, picture: Path | bytes, options: Options, folder: Path, name: str, report: Report
    ) -> dict[str, Path]:
        from onelook.foreground.extract import extract_foreground

        files = {}
        with report.step("cut out"):
            foreground = extract_foreground(picture, options.preprocess_image)
        for sentence in foreground.notes:
            report.note(sentence)
        report.figures["cut_out"] = foreground.method
        if options.return_no_background:
            from onelook.foreground.png import write_png

            files["no_background_image"] = folder / f"{name}_no_background.png"
            write_png(foreground.image, files["no_background_image"])
        if not (options.generate_model or options.generate_video):
            return files

        backend = self._backend(options, report)
        with report.step("shape"):
            surface = backend.generate(foreground, options, report)

        from onelook.asset.build import build_asset

        asset = build_asset(
            surface,
            decimation_target=options.face_budget,
            texture_size=options.texture_pixels,
            report=report,
            device=self.device,
        )
        if options.generate_model:
            from onelook.asset.gltf import write_glb

            files["model_file"] = folder / f"{name}.glb"
            with report.step("write model"):
                write_glb(asset, files["model_file"], extras=_provenance(options, report))
        if options.generate_video:
            from onelook.render.turntable import turntable_frames
            from onelook.render.video import write_video

            files["video"] = folder / f"{name}.mp4"
            with report.step("video"):
                frames = turntable_frames(asset, device=self.device, report=report)
                write_video(frames, files["video"])
        return files

    def _backend(self, options: Options, report: Report) -> Backend:
        from onelook.kernels import device_memory_bytes

        name = choose_backend(options.model, device_memory_bytes(self.device) / 1e9, report)
        report.figures["model"] = name
        if name not in self._loaded:
            self._loaded[name] = BACKENDS[name].load(self.device)
        return self._loaded[name]


def _provenance(options: Options, report: Report) -> dict[str, object]:
    """How the asset was made, for the GLB's `asset.extras`."""
    return {
        "made_with": f"onelook {__version__}",
        "model": report.figures["model"],
        "seed": options.seed,
        "options": asdict(options),
    }


def _metrics(options: Options, report: Report) -> dict[str, Figure]:
    """Flat and JSON-safe; a dot nests. Holds what was really used, so a misspelt option shows."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {f"seconds.{step.replace(' ', '_')}": s for step, s in report.seconds.items()}
    used = {f"options.{name}": value for name, value in asdict(options).items()}
    return {
        "seed": options.seed,
        **{name: round(value, 3) for name, value in seconds.items()},
        "seconds.total": round(sum(report.seconds.values()), 3),
        **report.figures,
        "peak_memory_gb": round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 3),
        **used,
    }


@contextmanager
def _staging(out_dir: Path) -> Iterator[Path]:
    """A folder inside `out_dir` that is gone afterwards; OS errors of writing become sentences."""
    created = [folder for folder in (out_dir, *out_dir.parents) if not folder.exists()]
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".onelook-", dir=out_dir))
    except OSError as error:
        _remove_empty(created)
        raise OutputError(
            f"the output folder cannot be written ({error.strerror}); choose another"
        ) from error
    try:
        yield staging
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(created)
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise OutputError(
                "the disk of the output folder is full; free some space or choose another"
            ) from error
        raise
    shutil.rmtree(staging, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # innermost first
        try:
            folder.rmdir()
        except OSError:
            return
