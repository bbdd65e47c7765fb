"""Background removal by a network that is already on this machine, through rembg.

Nothing is ever fetched and nothing leaves the machine: only sessions on a list are opened, and only
when rembg would find their file in its own folders. rembg itself is optional and imported late; it
takes seconds.

H rows, W columns.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from onelook.errors import OptionError

Array = np.ndarray

MODEL_VARIABLE = "ONELOOK_REMBG_MODEL"
OFF = "none"

# Sessions that run here and answer with one mask, best first. Left out: bria-rmbg (its licence
# forbids unpaid commercial use), sam and u2net_cloth_seg (other kinds of answer), withoutbg and
# atlascloud (they send the picture away).
SESSIONS = (
    "birefnet-general",
    "birefnet-general-fp16",
    "birefnet-general-lite",
    "birefnet-massive",
    "birefnet-hrsod",
    "birefnet-dis",
    "birefnet-cod",
    "birefnet-portrait",
    "isnet-general-use",
    "isnet-anime",
    "u2net",
    "silueta",
    "u2netp",
    "u2net_human_seg",
)
# Sessions around a file of one's own; used only when asked for by name.
CUSTOM_SESSIONS = ("u2net_custom", "dis_custom", "ben_custom")

MASK_SIZE = 1024  # the largest input of the listed networks


@dataclass(frozen=True)
class NetworkMask:
    """mask (H, W) float32 0..1 from rembg, or None and the reason in `note` (may be empty)."""

    mask: Array | None
    session: str = ""
    note: str = ""


def network_mask(rgb: Array, model: str | None = None) -> NetworkMask:
    """rgb (H', W', 3) uint8 -> the subject's mask at up to `MASK_SIZE` pixels, if there is a model.

    model: a session's name, "none" to use no network; by default the environment variable
    ONELOOK_REMBG_MODEL, else the best session whose file is there.
    Raises OptionError when the name is not on the list.
    """
    asked = model or os.environ.get(MODEL_VARIABLE) or ""
    if asked == OFF:
        return NetworkMask(None)
    if asked and asked not in SESSIONS + CUSTOM_SESSIONS:
        raise OptionError(
            f"Unknown background removal model {asked!r}; expected {OFF} or one of"
            f" {', '.join(SESSIONS + CUSTOM_SESSIONS)}."
        )
    found = next(((n, f) for n in ([asked] if asked else SESSIONS) if (f := _file(n))), None)
    if found is None:
        missing = f"The background removal model {asked} is not in rembg's folder, so it was not"
        return NetworkMask(None, note=f"{missing} used." if asked else "")
    name, file = found
    try:
        session = _session(name, str(file), file.stat().st_mtime_ns)
    except ImportError:
        note = f"The model {name} is here, but rembg is not installed, so it was not used."
        return NetworkMask(None, note=note)
    except Exception:  # onnxruntime has its own kinds of error for files that are no model
        note = f"The background removal model {name} could not be opened, so it was not used."
        return NetworkMask(None, note=note)
    return NetworkMask(_predict(session, rgb), session=name)


def _folders(name: str) -> list[Path]:
    """Where rembg 2.0.86 looks for a session's file, in its order."""
    data, old = os.environ.get("XDG_DATA_HOME"), os.environ.get("U2NET_HOME")
    legacy = Path(old) if old else Path(data or "~") / ".u2net"
    home = Path(os.environ.get("REMBG_HOME") or (f"{data}/rembg" if data else "~/.rembg"))
    home = legacy if old else home
    return [(home / "models" / name).expanduser(), legacy.expanduser()]


def _file(name: str) -> Path | None:
    files = (folder / f"{name}.onnx" for folder in _folders(name))
    return next((file for file in files if file.is_file()), None)


@lru_cache(maxsize=1)
def _session(name: str, file: str, changed: int) -> Any:
    """A rembg session; `changed` (the file's time) makes a replaced file be read again."""
    from rembg import new_session

    return new_session(name, **({"model_path": file} if name in CUSTOM_SESSIONS else {}))


def _predict(session: Any, rgb: Array) -> Array:
    from PIL import Image

    height, width = rgb.shape[:2]
    factor = min(1.0, MASK_SIZE / max(height, width))
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    with np.errstate(all="ignore"):  # a constant answer is divided by its range of zero
        mask = session.predict(Image.fromarray(small))[0]
    return np.asarray(mask.convert("L"), np.float32) / 255
