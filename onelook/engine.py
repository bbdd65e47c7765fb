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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onelook import __version__
from onelook.backends import BACKENDS, Backend, Setup, choose_backend
from onelook.errors import OnelookError, OptionError, OutputError
from onelook.options import Options
from onelook.report import Figure, Report
from onelook.time_cap import STEP_SECONDS, Capped

if TYPE_CHECKING:
    from onelook.asset.asset import Asset, ColoredMesh
    from onelook.foreground.foreground import Foreground
    from onelook.surface import Surface

CUT_OUT_SHARE = 3
ASSET_SHARES = {  # of the time of a run, beside the backend's own; only for the progress bar
    "clean": 3,
    "simplify": 3,
    "unwrap": 25,
    "bake": 20,
    "write model": 10,
    "lay out": 1,
    "preview": 1,
    "contact sheet": 2,
    "video": 40,
}
ATTACHMENTS = {  # output -> the option that asks for it, and how its file's name ends
    "gaussian_file": ("generate_gaussian", "_gaussians.ply"),
    "views_image": ("generate_views", "_views.png"),
    "frames_file": ("generate_frames", "_frames.zip"),
}
OUTPUTS = (
    "no_background_image",
    "video",
    "model_file",
    "preview_image",
    "contact_sheet",
    *ATTACHMENTS,
)
NERF_VIDEO = "nerf_video"  # attachment: the film that video_source nerf asks for
SMALLEST_FILM = 256  # pixels a side
MOST_VIEWS = 8  # further pictures of one object
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Result:
    """Files of one run (None where not asked for) and its figures.

    files has the keys of OUTPUTS.
    """

    files: dict[str, Path | None]
    metrics: dict[str, Figure]


class Engine:
    """Keeps the loaded backends; holds nothing else between requests."""

    def __init__(
        self,
        device: str = "auto",
        vram: str | float = "auto",
        weights: str | None = None,
        step_seconds: float = STEP_SECONDS,
    ):
        """device: "auto", "cpu", "cuda" or "cuda:N". vram: "auto" or the gigabytes of GPU memory
        that networks may use. weights: another checkpoint in the layout of the model's own (folder
        or owner/repository). step_seconds: a step after the model's own that takes longer is done
        in a plainer way. Raises OptionError where the device is not there.
        """
        from onelook.kernels import resolve_device

        self.device = resolve_device(device)
        self._setup = Setup(self.device, vram, weights)
        self._step_seconds = step_seconds
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
        images: Sequence[Path | bytes] = (),
    ) -> Result:
        """Make the files `options` ask for.

        picture: a file or the bytes of one. images: further pictures of the same object, at most
        MOST_VIEWS, for models that take them. The files are NAME.glb and NAME.mp4, or with the
        endings of the formats asked for, and NAME_no_background.png, NAME_preview.png,
        NAME_contact_sheet.png and those of ATTACHMENTS. Raises a named error of `onelook.errors`
        with a sentence for the user; then no file is left in `out_dir`.
        """
        report = report or Report()
        options = options.with_drawn_seed()
        _refuse_the_impossible(options, len(images))
        with _staging(Path(out_dir)) as staging:
            made = self._make_files([picture, *images], options, staging, name, report)
            sizes = {key: path.stat().st_size for key, path in made.items()}
            files = {key: Path(out_dir) / path.name for key, path in made.items()}
            for key, path in made.items():
                os.replace(path, files[key])
        for key, size in sizes.items():
            report.figures[f"megabytes.{key}"] = round(size / 1e6, 3)
        return Result({key: files.get(key) for key in OUTPUTS}, _metrics(options, report))

    def _make_files(
        self,
        pictures: Sequence[Path | bytes],
        options: Options,
        folder: Path,
        name: str,
        report: Report,
    ) -> dict[str, Path]:
        files = {}
        backend, shares = None, {}
        if options.needs_surface:
            backend = self.open_backend(options.model, report)
            shares = {**backend.step_shares, **(ASSET_SHARES if options.needs_asset else {})}
            pictures = _usable(pictures, report)
        report.plan({"cut out": CUT_OUT_SHARE, **shares})
        foregrounds = _cut_out(pictures if backend else pictures[:1], options, report)
        if options.return_no_background:
            from onelook.foreground.png import write_png

            files["no_background_image"] = folder / f"{name}_no_background.png"
            write_png(foregrounds[0].image, files["no_background_image"])
        if backend is not None:
            surface = backend.generate(foregrounds, options, report)
            files |= _write_attachments(surface, options, folder / name, report)
            if options.needs_asset:
                files |= self._make_asset_files(surface, options, folder, name, report)
        return files

    def _make_asset_files(
        self, surface: Surface, options: Options, folder: Path, name: str, report: Report
    ) -> dict[str, Path]:
        from onelook.asset.build import build_asset, build_colored_mesh, textured

        limits = {"report": report, "device": self.device, "step_seconds": self._step_seconds}
        if options.bake_texture:
            model = asset = build_asset(
                surface,
                decimation_target=options.face_budget,
                texture_size=options.texture_pixels,
                normal_map=options.normal_map,
                **limits,
            )
        else:
            model = build_colored_mesh(surface, decimation_target=options.face_budget, **limits)
            asset = None
        files = {}
        if options.generate_model:
            files["model_file"] = _write_model(model, options, folder / name, report)
        if options.is_shown:
            if asset is None:
                with report.step("lay out"):
                    asset = textured(model, self.device)
            own_film = surface.attachments.get(NERF_VIDEO)
            files |= self._take_pictures(asset, own_film, options, folder, name, report)
        return files

    def _take_pictures(
        self,
        asset: Asset,
        own_film: Callable[[Path], None] | None,
        options: Options,
        folder: Path,
        name: str,
        report: Report,
    ) -> dict[str, Path]:
        """Preview, contact sheet and film of one scene, as far as they are asked for.

        own_film: writes the film of the model's own field, where it has one.
        """
        from onelook.foreground.png import write_png
        from onelook.render.film import FILM_SUFFIXES, write_turntable
        from onelook.render.scene import RenderScene
        from onelook.render.turntable import contact_sheet, preview

        files: dict[str, Path] = {}
        scene = RenderScene(asset, self.device)
        if options.return_preview:
            files["preview_image"] = folder / f"{name}_preview.png"
            with report.step("preview"):
                write_png(preview(scene), files["preview_image"])
        if options.return_contact_sheet:
            files["contact_sheet"] = folder / f"{name}_contact_sheet.png"
            with report.step("contact sheet"):
                write_png(contact_sheet(scene), files["contact_sheet"])
        if options.generate_video:
            files["video"] = folder / f"{name}{FILM_SUFFIXES[options.video_format]}"

            def film(size: int) -> None:
                write_turntable(
                    scene, files["video"], size=size, format=options.video_format, report=report
                )

            if options.video_source == "nerf" and own_film is None:
                model = report.figures["model"]
                report.note(f"video_source nerf is ignored: {model} has no field to film")
            with report.step("video"):
                if options.video_source == "nerf" and own_film is not None:
                    own_film(files["video"])
                    return files
                Capped(report, self._step_seconds)(
                    lambda: film(options.video_size),
                    lambda: film(SMALLEST_FILM),
                    f"the film has {SMALLEST_FILM} pixels a side instead of {options.video_size}",
                )
        return files

    def open_backend(self, model: str, report: Report) -> Backend:
        """The backend of `model`, opened the first time it is asked for.

        Raises OptionError for an unknown model, WeightsError when its weights cannot be used.
        """
        from onelook.kernels import device_memory_bytes

        memory = device_memory_bytes(self.device) / 1e9
        name = choose_backend(model, memory, report, own_weights=self._setup.weights)
        report.figures["model"] = name
        if name not in self._loaded:
            with report.step("open weights"):
                self._loaded[name] = BACKENDS[name].load(self._setup)
        return self._loaded[name]


def _refuse_the_impossible(options: Options, view_count: int) -> None:
    """Raises OptionError before any work is done for nothing."""
    if view_count > MOST_VIEWS:
        raise OptionError(f"images may hold at most {MOST_VIEWS} pictures, got {view_count}")
    if not (options.needs_surface or options.return_no_background):
        raise OptionError(
            "nothing to do: turn on generate_model, generate_video, return_no_background,"
            " return_preview, return_contact_sheet, generate_gaussian, generate_views or"
            " generate_frames"
        )
    is_draco = options.format == "glb" and options.geometry_compression == "draco"
    if is_draco and not options.bake_texture:
        raise OptionError("geometry_compression draco needs bake_texture")
    if options.generate_model and is_draco:
        from onelook.asset.draco import require_draco

        require_draco()


def _usable(pictures: Sequence[Path | bytes], report: Report) -> Sequence[Path | bytes]:
    """The pictures the chosen model has use for; a note where it takes only the first."""
    model = str(report.figures["model"])
    if len(pictures) == 1 or BACKENDS[model].takes_views:
        return pictures
    report.note(f"{model} takes one picture: images is ignored")
    return pictures[:1]


def _cut_out(
    pictures: Sequence[Path | bytes], options: Options, report: Report
) -> list[Foreground]:
    """The pictures' subjects; an error of a further picture says which one it is."""
    from onelook.foreground.extract import extract_foreground

    foregrounds = []
    with report.step("cut out"):
        for number, picture in enumerate(pictures):
            try:
                foregrounds.append(extract_foreground(picture, options.preprocess_image))
            except OnelookError as error:
                if number == 0:
                    raise
                raise type(error)(f"picture {number} of images: {error}") from error
            report.advance((number + 1) / len(pictures))
    for sentence in dict.fromkeys(note for one in foregrounds for note in one.notes):
        report.note(sentence)
    report.figures["cut_out"] = foregrounds[0].method
    report.figures["pictures"] = len(foregrounds)
    return foregrounds


def _write_attachments(
    surface: Surface, options: Options, stem: Path, report: Report
) -> dict[str, Path]:
    files = {}
    for output, (option, ending) in ATTACHMENTS.items():
        if not getattr(options, option):
            continue
        if output in surface.attachments:
            files[output] = stem.with_name(stem.name + ending)
            surface.attachments[output](files[output])
        else:
            report.note(f"{option} is ignored: {report.figures['model']} has no such output")
    return files


def _write_model(asset: Asset | ColoredMesh, options: Options, stem: Path, report: Report) -> Path:
    from onelook.asset.export import MODEL_SUFFIXES, write_model

    path = stem.with_name(stem.name + MODEL_SUFFIXES[options.format])
    with report.step("write model"):
        write_model(
            asset,
            path,
            format=options.format,
            texture_format=options.texture_format,
            geometry_compression=options.geometry_compression,
            extras=_provenance(options, report),
        )
    return path


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
