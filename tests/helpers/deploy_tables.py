"""What the deployment material repeats: written from where it stands first.

The tables of docs/deploy.md come from the manifest and the table of backends, the requirements of a
Space from pyproject.toml. `python tests/helpers/deploy_tables.py` writes them; a test tells when
they differ.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from onelook.backends import BACKENDS  # noqa: E402
from onelook.weights.locate import expand_names  # noqa: E402
from onelook.weights.manifest import Checkpoint, manifest  # noqa: E402

DOCUMENT = ROOT / "docs" / "deploy.md"
SPACE_REQUIREMENTS = ROOT / "docs" / "space" / "requirements.txt"
AUTHORS = {  # what the authors of each system say their own code needs
    "trellis": "at least 16 GB (their README; tested on A100 and A6000)",
    "trellis2": "at least 24 GB (their README)",
    "instantmesh": "tested on a V100 with 32 GB",
    "triposr": "about 6 GB at default options (their README)",
    "relief": "",
}
_REPLACED = {"yes": "allowed", "no": "**not allowed**", "ask": "ask the owner first"}


def memory_table() -> str:
    """Every model of this version: size of its weights and least GPU memory."""
    lines = [
        "| model | weights on disk | least GPU memory here | the authors' own code |",
        "| --- | --- | --- | --- |",
    ]
    for name, entry in BACKENDS.items():
        needs = f"{entry.device_memory_gb:g} GB" if entry.device_memory_gb else "no GPU needed"
        lines.append(
            f"| `{name}` | {_size(entry.weights)} | {needs} | {AUTHORS.get(name) or '–'} |"
        )
    return "\n".join(lines)


def licence_table() -> str:
    """Every checkpoint of the manifest: which models need it, and on what terms."""
    lines = [
        "| checkpoint | repository | licence | commercial use | gated | needed by |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in manifest().checkpoints.items():
        users = ", ".join(manifest().models_using(name)) or "–"
        terms = _REPLACED.get(entry.commercial_use, "unknown")
        lines.append(
            f"| `{name}` | {entry.repository} | {entry.licence} | {terms} | {entry.gated}"
            f" | {users} |"
        )
    return "\n".join(lines)


def space_requirements() -> str:
    """What a Space has to install beside Gradio, which it brings itself.

    By name, not as `.[models]`: a Space installs them before it has the source.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["models"]]
    return "\n".join(wanted) + "\n"


def fill_in(text: str) -> str:
    """The document with its tables as they are now."""
    for mark, table in (("memory", memory_table()), ("licences", licence_table())):
        pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
        filled = rf"\g<1>{table}\n\g<2>"
        text, count = re.subn(pattern, filled, text, flags=re.DOTALL)
        assert count == 1, f"the document has no place for the table {mark}"
    return text


def _size(names: tuple[str, ...]) -> str:
    if not names:
        return "none"
    entries: list[Checkpoint] = [manifest().checkpoints[name] for name in expand_names(names)]
    known = sum(entry.known_bytes for entry in entries) / 1e9
    complete = all(spec.bytes for entry in entries for spec in entry.files)
    if not known:
        return "not known before they are fetched"
    return f"{known:.1f} GB" if complete else f"more than {known:.1f} GB"


if __name__ == "__main__":
    DOCUMENT.write_text(fill_in(DOCUMENT.read_text("utf-8")), "utf-8")
    SPACE_REQUIREMENTS.write_text(space_requirements(), "utf-8")
