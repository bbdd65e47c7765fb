"""What the README tells a stranger to type works."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from onelook.options import options_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_two_commands_are_there_and_known_to_make():
    assert {"make demo", "make test"} <= set(_commands())
    for target in ("demo", "test"):
        planned = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "pip install" in planned.stdout or ".venv/bin/" in planned.stdout


@pytest.mark.parametrize("command", [c for c in _commands() if "onelook examples" in c])
def test_onelook_commands_are_understood_and_their_pictures_exist(command):
    from onelook.cli import _generate_parser, _parse
    from onelook.options import Options, parse_options

    words = [w for word in shlex.split(command)[1:] for w in _expand(word)]
    arguments = _parse(_generate_parser(), words)
    assert arguments.pictures
    for image in arguments.pictures:
        assert (ROOT / image).is_file()
    given = {k: v for k, v in vars(arguments).items() if k in Options.__dataclass_fields__}
    parse_options({k: v for k, v in given.items() if v is not None})


def _expand(word: str) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in ROOT.glob(word)] if "*" in word else [word]


def test_the_python_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    path, faces = done.stdout.split()
    assert (tmp_path / path).stat().st_size > 100_000
    assert int(faces) > 1000


def test_links_and_pictures_of_the_pages_exist():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_the_options_page_is_the_options_table():
    assert options_table() in (ROOT / "docs" / "options.md").read_text()
