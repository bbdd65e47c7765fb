"""Open a checkpoint without initialising, copying or converting anything.

The network is built on the meta device, which has shapes and no memory; the safetensors file is
mapped, and its tensors become the parameters, in the type they are stored in. Reading happens when
a page is first touched. The mapped file must not be rewritten in place while the process lives;
replacing it by another file is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onelook.errors import WeightsError
from onelook.weights.layouts import FOLDER_WEIGHTS, read_model_config, require_file
from onelook.weights.pickles import PICKLE_SUFFIXES, as_safetensors, load_pickle

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHOWN = 3  # keys named in a message


def open_model(
    factory: Callable[[], nn.Module],
    path: Path,
    *,
    prefix: str = "",
    ignore: Iterable[str] = (),
    rename: Callable[[str], str] | None = None,
) -> nn.Module:
    """Build a network and give it the tensors of a file, mapped, with exactly its keys and shapes.

    factory: makes the network; what it makes is made on the meta device. path: safetensors, or a
    pickle (.ckpt, .bin, .pt, .pth), which is converted once. prefix: only keys that begin with it
    count, and it is cut off. ignore: keys that contain one of these are left out. rename: applied
    to each remaining key.
    Returns the network in eval mode, without gradients, its types as stored, on the CPU.
    Raises WeightsError when the file is missing or damaged, its keys or shapes differ, or a tensor
    of the network stays empty because no checkpoint holds it.
    """
    model = build_empty(factory)
    tensors = read_tensors(path, prefix=prefix, ignore=ignore, rename=rename)
    return fill_model(model, tensors, _shown_name(path))


def build_empty(factory: Callable[[], nn.Module]) -> nn.Module:
    """`factory()` on the meta device and without initial values: shapes, no memory, no numbers.

    Initialising costs time there as well, although nothing is written: most functions of torch
    that compute are Python on the meta device, and the first one to make a table (arange, stack)
    even imports torch's compiler, 1.5 s. A network that computes tables does it under
    `torch.device("cpu")`.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class WithoutInitialValues(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if getattr(function, "__module__", None) == "torch.nn.init":
                return kwargs["tensor"] if "tensor" in kwargs else args[0]
            return function(*args, **kwargs)

    with torch.device("meta"), WithoutInitialValues():
        return factory()


def fill_model(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """Make `tensors` the parameters and buffers of a network that `build_empty` made.

    For checkpoints whose tensors have to be cut or joined first; `open_model` does the rest in one.
    source: the file's name, for messages. Returns and raises as `open_model`.
    """
    _require_fit(model, tensors, source)
    model.load_state_dict(dict(tensors), strict=True, assign=True)
    if empty := tensors_on_meta(model):
        raise WeightsError(
            f"{type(model).__name__} leaves {_some(empty)} empty: no checkpoint fills it, so it"
            " must be computed on first use or on a real device"
        )
    return model.requires_grad_(False).eval()


def open_pair(
    stem: Path, classes: Mapping[str, Callable[[dict[str, Any]], nn.Module]]
) -> nn.Module:
    """Open `<stem>.json` and `<stem>.safetensors`, the pair of TRELLIS and TRELLIS.2.

    classes: class name in the json -> function from its args to the network.
    Raises WeightsError as `open_model`, and for a json that does not name one of `classes`.
    """
    config_path = stem.with_name(stem.name + ".json")
    config = read_model_config(config_path)
    if config.name not in classes:
        raise WeightsError(
            f"{config_path.name} names the class {config.name!r}; known here are"
            f" {', '.join(sorted(classes))}. Is this the checkpoint of another system?"
        )

    def build() -> nn.Module:
        try:
            return classes[config.name](config.args)
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(
                f"{config_path.name}: the args do not fit {config.name} ({error}); is it the json"
                " of another version?"
            ) from error

    return open_model(build, stem.with_name(stem.name + ".safetensors"))


def read_tensors(
    path: Path,
    *,
    prefix: str = "",
    ignore: Iterable[str] = (),
    rename: Callable[[str], str] | None = None,
) -> dict[str, Tensor]:
    """The tensors of a weights file, mapped rather than read; arguments as in `open_model`."""
    ignore = tuple(ignore)

    def kept(key: str) -> str | None:
        if not key.startswith(prefix) or any(word in key for word in ignore):
            return None
        key = key[len(prefix) :]
        return rename(key) if rename else key

    require_file(path)
    if path.suffix in PICKLE_SUFFIXES:
        converted = as_safetensors(path)
        if converted is None:  # a read-only place: open the pickle itself, mapped as well
            tensors = load_pickle(path)
            return {new: tensors[key] for key in tensors if (new := kept(key)) is not None}
        path = converted
    return _map_safetensors(path, kept)


def tensors_on_meta(model: nn.Module) -> list[str]:
    """Names of the tensors that are still without memory: parameters, buffers, and plain attributes
    of the modules, also inside their lists, tuples and dicts."""
    import torch

    found = []

    def look(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if value.is_meta:
                found.append(name)
        elif isinstance(value, dict):
            for key, item in value.items():
                look(f"{name}[{key!r}]", item)
        elif isinstance(value, list | tuple | set):
            for index, item in enumerate(value):
                look(f"{name}[{index}]", item)

    for module_name, module in model.named_modules():
        dot = f"{module_name}." if module_name else ""
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                for key, item in value.items():
                    look(dot + key, item)
            elif name != "_modules":
                look(dot + name, value)
    return list(dict.fromkeys(found))


def _map_safetensors(path: Path, kept: Callable[[str], str | None]) -> dict[str, Tensor]:
    from safetensors import SafetensorError

    from onelook.weights.mapping import map_tensors

    try:
        return map_tensors(path, kept)
    except SafetensorError as error:
        raise WeightsError(
            f"{_shown_name(path)} is damaged or not whole ({error}); find out with: onelook weights"
            " verify, and mend it with: onelook weights pull"
        ) from error
    except OSError as error:
        raise WeightsError(f"{_shown_name(path)} cannot be read ({error.strerror})") from error


def _require_fit(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise WeightsError unless the file has exactly the model's keys and shapes."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    got = {key: tuple(value.shape) for key, value in tensors.items()}
    if wanted == got:
        return
    missing = [key for key in wanted if key not in got]
    unexpected = [key for key in got if key not in wanted]
    reshaped = [key for key in wanted if key in got and got[key] != wanted[key]]
    parts = []
    if missing or unexpected:
        parts += [f"{len(missing)} missing{_first(missing)}"]
        parts += [f"{len(unexpected)} unexpected{_first(unexpected)}"]
    if reshaped:
        key = reshaped[0]
        parts += [
            f"{len(reshaped)} of another shape (first: {key} is {got[key]} in the file,"
            f" {wanted[key]} in the model)"
        ]
    cause = _likely_cause(missing, unexpected, got, wanted)
    raise WeightsError(f"{source} does not fit {type(model).__name__}: {', '.join(parts)}. {cause}")


def _likely_cause(missing: list[str], unexpected: list[str], got: dict, wanted: dict) -> str:
    if not got:
        return "The file holds no tensors under the expected prefix: is it another checkpoint?"
    if missing and len(missing) == len(wanted) and len(got) > 1:
        shared = commonprefix(list(got))
        shared = shared[: shared.rfind(".") + 1]
        if shared and any(key.removeprefix(shared) in wanted for key in got):
            return f"All its keys begin with {shared!r}: was it saved with a wrapper around it?"
    if not missing and not unexpected:
        return "Is this the checkpoint of another size? `onelook weights list` shows what fits."
    return "Is this the checkpoint of another variant? `onelook weights list` shows what fits."


def _first(keys: list[str]) -> str:
    return f" (first: {_some(keys)})" if keys else ""


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _shown_name(path: Path) -> str:
    """The file's name; with its folder's where the name alone says nothing."""
    return f"{path.parent.name}/{path.name}" if path.name in FOLDER_WEIGHTS else path.name
