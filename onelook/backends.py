"""The one table of backends: what each is, what it needs, and how it is loaded.

A backend is imported only inside its loader. The table is in order of quality, best first: that is
the order in which `auto` tries them. `relief` needs nothing, so `auto` always finds one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from onelook.errors import OptionError, WeightsError
from onelook.foreground.foreground import Foreground
from onelook.options import Options
from onelook.report import Report
from onelook.surface import Surface


@dataclass(frozen=True)
class Setup:
    """What a backend is opened with; nothing of a request.

    device: "cpu" or "cuda:N". vram: "auto" or gigabytes of GPU memory it may use. weights: a folder
    or owner/repository with another checkpoint in the same layout, None for the manifest's.
    """

    device: str
    vram: str | float = "auto"
    weights: str | None = None


class Backend(Protocol):
    """One system: a cut-out picture in, a surface out.

    step_shares: the steps that `generate` reports, and each one's share of the time of a run in
    which everything after the surface takes about 100.
    """

    step_shares: dict[str, float]

    def generate(
        self, foregrounds: Sequence[Foreground], options: Options, report: Report
    ) -> Surface:
        """foregrounds: the picture, then, where the entry says `takes_views`, others of it."""
        ...


@dataclass(frozen=True)
class BackendEntry:
    """How the engine knows a backend.

    weights: names in the weights manifest, all of which it needs. device_memory_gb: least GPU
    memory it runs in with low-VRAM swapping; 0 where it needs no GPU. modules: what it imports
    beyond the core, all of it in the extra "models". takes_views: whether it has use for further
    pictures of the object.
    """

    summary: str
    load: Callable[[Setup], Backend]
    weights: tuple[str, ...] = ()
    device_memory_gb: float = 0.0
    modules: tuple[str, ...] = ()
    takes_views: bool = False


def _load_trellis2(setup: Setup) -> Backend:
    from trellis2_backend.backend import Trellis2Backend

    return Trellis2Backend(setup)


def _load_trellis(setup: Setup) -> Backend:
    from trellis_backend.backend import TrellisBackend

    return TrellisBackend(setup)


def _instantmesh(variant: str, weights: str, what: str) -> BackendEntry:
    """One of the four models that InstantMesh's authors published."""

    def load(setup: Setup) -> Backend:
        from instantmesh_backend.backend import InstantMeshBackend

        return InstantMeshBackend(setup, variant)

    return BackendEntry(
        f"InstantMesh: six views by Zero123++, {what}",
        load,
        modules=("torch", "safetensors", "transformers", "diffusers", "yaml"),
        weights=(weights,),
        device_memory_gb=6.0,
    )


def _load_triposr(setup: Setup) -> Backend:
    from triposr_backend.backend import TripoSRBackend

    return TripoSRBackend(setup)


def _load_relief(setup: Setup) -> Backend:
    from relief_backend.pipeline import ReliefBackend

    return ReliefBackend()


BACKENDS: dict[str, BackendEntry] = {
    "trellis2": BackendEntry(
        "TRELLIS.2-4B: mesh with a PBR material per voxel",
        _load_trellis2,
        modules=("torch", "safetensors", "transformers"),
        weights=("trellis2",),
        device_memory_gb=6.0,
    ),
    "trellis": BackendEntry(
        "TRELLIS-image-large: mesh coloured by its Gaussians",
        _load_trellis,
        modules=("torch", "safetensors", "transformers"),
        weights=("trellis",),
        device_memory_gb=4.0,
        takes_views=True,
    ),
    "instantmesh": _instantmesh(
        "instant-mesh-large", "instantmesh-large", "a mesh coloured by its triplane"
    ),
    "instantmesh-base": _instantmesh(
        "instant-mesh-base", "instantmesh-base", "the smaller of its two mesh models"
    ),
    "instantnerf": _instantmesh(
        "instant-nerf-large", "instantnerf-large", "a density field's surface"
    ),
    "instantnerf-base": _instantmesh(
        "instant-nerf-base", "instantnerf-base", "the smaller of its two density fields"
    ),
    "triposr": BackendEntry(
        "TripoSR: a triplane in one pass, its mesh and colours",
        _load_triposr,
        modules=("torch", "safetensors", "yaml"),
        weights=("triposr",),
        device_memory_gb=4.0,
    ),
    "relief": BackendEntry("instant preview: the silhouette inflated, no weights", _load_relief),
}


def choose_backend(
    model: str,
    device_memory_gb: float,
    report: Report,
    backends: dict[str, BackendEntry] = BACKENDS,
    own_weights: str | None = None,
) -> str:
    """The name of the backend for `model`, after resolving "auto"; says in the log what and why.

    device_memory_gb: memory of the GPU, 0 without one. own_weights: the place that was named for
    the model's checkpoint, which is looked at when it is opened.
    Raises WeightsError when a named model lacks weights, OptionError when there is no such model.
    """
    if model != "auto":
        if model not in backends:
            raise OptionError(f"model must be one of auto, {', '.join(backends)}, got {model!r}")
        if absent := _absent_modules(backends[model]):
            raise OptionError(
                f"model {model} needs libraries that are not installed: {', '.join(absent)};"
                " get them with: pip install 'onelook[models]'"
            )
        missing = missing_weights_of(backends[model])
        if missing and not own_weights:
            raise WeightsError(
                f"model {model} needs weights that are not on this machine: {', '.join(missing)};"
                f" get them with: onelook weights pull {' '.join(missing)}"
            )
        return model
    if own_weights:
        raise OptionError("weights were named for one model, so name the model, too")
    passed_over = []
    for name, entry in backends.items():
        obstacle = _obstacle(entry, device_memory_gb)
        if obstacle is None:
            report.note(_choice_note(name, entry, passed_over))
            return name
        passed_over.append(f"{name} ({obstacle})")
    raise WeightsError(f"no model can run here: {'; '.join(passed_over)}")


def missing_weights_of(entry: BackendEntry) -> list[str]:
    """Names of the weights this backend needs and that are not on this machine."""
    if not entry.weights:
        return []
    from onelook.weights.locate import missing_weights

    return missing_weights(entry.weights)


def _absent_modules(entry: BackendEntry) -> list[str]:
    return [name for name in entry.modules if importlib.util.find_spec(name) is None]


def _obstacle(entry: BackendEntry, device_memory_gb: float) -> str | None:
    if absent := _absent_modules(entry):
        return f"{', '.join(absent)} not installed: pip install 'onelook[models]'"
    try:
        missing = missing_weights_of(entry)
    except WeightsError as error:  # a damaged lock, say
        return str(error)
    if missing:
        return f"no weights: onelook weights pull {' '.join(missing)}"
    if entry.device_memory_gb > device_memory_gb:
        return f"needs a GPU with {entry.device_memory_gb:g} GB"
    return None


def _choice_note(name: str, entry: BackendEntry, passed_over: list[str]) -> str:
    if passed_over:
        why = f"not possible here: {'; '.join(passed_over)}"
    elif entry.weights:
        why = "the best model, and its weights are on this machine"
    else:
        why = "no other model is part of this version"
    return f"model auto: chose {name} ({entry.summary}); {why}"
