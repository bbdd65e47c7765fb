"""The command line in real processes: what it prints, returns and leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.pictures import mushroom_png

from onelook import __version__
from onelook.backends import BACKENDS
from onelook.cli import COMMANDS
from onelook.options import option_fields

SMALL = ["--decimation_target", "1000", "--texture_size", "256"]
CUT_OUT_ONLY = ["--return_no_background", "--no-generate_video", "--no-generate_model"]
HEAVY = ("numpy", "scipy", "cv2", "PIL", "av", "warp", "torch", "trimesh", "xatlas", "tqdm")


def onelook(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "onelook.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "mushroom.png"
    path.write_bytes(mushroom_png())
    return path


def entries(folder: Path) -> list[str]:
    """Everything in the folder, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_help_names_every_option_and_is_quick():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = onelook("--help")
        seconds.append(time.perf_counter() - start)
    assert done.returncode == 0
    for option in option_fields():
        assert f"--{option.name}" in done.stdout
    assert f"onelook {' | '.join(sorted(COMMANDS))}" in " ".join(done.stdout.split())
    assert min(seconds) <= 0.5


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["warmup", "--help"],
        ["doctor", "--help"],
        ["render", "--help"],
        ["render", "a.glb"],
        ["a.png", "--sed", "1"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_before_it_is_needed(argv):
    code = (
        "import sys\n"
        "from onelook.cli import main\n"
        "try:\n"
        f"    main({argv!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_version():
    done = onelook("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"onelook {__version__}")


def test_doctor_says_what_is_here_and_how_to_get_the_rest():
    done = onelook("doctor")
    assert done.returncode == 0
    assert f"onelook {__version__}" in done.stdout
    for word in ("python", "cpu", "gpu", "warp-lang", "rembg", "relief"):
        assert word in done.stdout
    assert done.stderr == ""


def test_warmup_is_repeatable_and_leaves_no_file(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "onelook.cli", "warmup"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "kernels are ready" in done.stdout
    assert entries(tmp_path) == []


def test_several_pictures_one_of_them_bad(tmp_path):
    first, second = tmp_path / "a" / "mushroom.png", tmp_path / "b" / "mushroom.png"
    bad = tmp_path / "bad.png"
    for path, size in ((first, 96), (second, 64)):
        path.parent.mkdir()
        path.write_bytes(mushroom_png(size))
    bad.write_text("no picture at all")
    out = tmp_path / "out" / "new"
    done = onelook(first, bad, tmp_path / "missing.png", second, "-o", out, *CUT_OUT_ONLY)
    assert done.returncode == 1
    names = ["mushroom_no_background.png", "mushroom-2_no_background.png"]
    assert entries(out) == sorted(names)
    complaints = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(complaints) == 2
    assert complaints[0].startswith(f"onelook: error: {bad}: ")
    assert complaints[1].startswith(f"onelook: error: {tmp_path / 'missing.png'}: ")
    assert "Traceback" not in done.stderr
    for name in names:  # what was made is named, with its meaning
        assert f"{out / name}  picture without background (PNG)" in done.stdout


def test_all_files_of_one_picture(picture, tmp_path):
    out = tmp_path / "out"
    done = onelook(picture, "-o", out, "--return-no-background", *SMALL)
    assert done.returncode == 0, done.stderr
    assert entries(out) == ["mushroom.glb", "mushroom.mp4", "mushroom_no_background.png"]
    assert (out / "mushroom.glb").read_bytes()[:4] == b"glTF"
    assert (out / "mushroom.mp4").read_bytes()[4:8] == b"ftyp"
    assert (out / "mushroom_no_background.png").read_bytes()[:4] == b"\x89PNG"
    assert "model auto: chose relief" in done.stderr
    assert "seed 42" in done.stdout


def test_quiet_prints_file_names_only(picture, tmp_path):
    done = onelook(picture, "-o", tmp_path / "out", "-q", *CUT_OUT_ONLY)
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--texture_sise", "512"], "no option --texture_sise; did you mean --texture_size?"),
        (["--texture-sise=512"], "no option --texture-sise; did you mean --texture_size?"),
        (["--tex"], "no option --tex"),  # no abbreviations: a later option could change them
        (["--zzzzzz", "1"], "no option --zzzzzz; see onelook --help"),
        (["--texture_size", "100"], "texture_size must be a whole number from 256 to 8192"),
        (["--seed", "-1"], "seed must be a whole number from 0 to 2147483647, got '-1'"),
        (["--tex_slat_cfg", "nan"], "tex_slat_cfg must be a number from 0 to 15"),
        (["--quality", "best"], "quality must be one of custom, balanced, high, ultra"),
        (["--model", "dalle"], f"model must be one of auto, {', '.join(BACKENDS)}, got 'dalle'"),
        ([*CUT_OUT_ONLY[1:]], "nothing to do: turn on generate_model"),
        (["--seed"], "expected one argument"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_makes_no_folder(picture, tmp_path, arguments, complaint):
    done = onelook(picture, "-o", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert entries(tmp_path) == ["mushroom.png"]


def test_missing_arguments_are_exit_code_2(picture):
    for arguments in ([], [picture]):
        done = onelook(*arguments)
        assert done.returncode == 2
        assert "usage: onelook IMAGE... -o OUT" in done.stderr


def test_folders_stand_for_their_pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b.png", "a.PNG"):
        (folder / name).write_bytes(mushroom_png(64))
    (folder / "notes.txt").write_text("no picture")
    done = onelook(folder, "-o", tmp_path / "out", *CUT_OUT_ONLY)
    assert done.returncode == 0, done.stderr
    assert entries(tmp_path / "out") == ["a_no_background.png", "b_no_background.png"]
    (tmp_path / "empty").mkdir()
    refused = onelook(tmp_path / "empty", "-o", tmp_path / "out", *CUT_OUT_ONLY)
    assert refused.returncode == 2 and "the folder empty holds no picture" in refused.stderr


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_output_folder_that_is_a_file(picture, tmp_path, below):
    (tmp_path / "out").write_text("a file in the way")
    done = onelook(picture, "-o", tmp_path / "out" / below, *CUT_OUT_ONLY)
    assert done.returncode == 1
    assert "the output folder cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert entries(tmp_path) == ["mushroom.png", "out"]
    assert (tmp_path / "out").read_text() == "a file in the way"


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of 16 kB on a folder, with the given mount options, and returns the folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> Path:
        given = ",".join(("size=16k", *options))
        command = ["mount", "-t", "tmpfs", "-o", given, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a disk needs root")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_output_folder_without_permission(picture, tmp_path):
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0o500)
    if os.access(sealed, os.W_OK):
        pytest.skip("root may write everywhere")
    done = onelook(picture, "-o", sealed / "out", *CUT_OUT_ONLY)
    assert done.returncode == 1
    assert "the output folder cannot be written (Permission denied)" in done.stderr
    assert entries(sealed) == []


def test_output_folder_on_a_disk_for_reading_only(picture, small_disk):
    disk = small_disk("ro")
    for out in (disk, disk / "out"):
        done = onelook(picture, "-o", out, *CUT_OUT_ONLY)
        assert done.returncode == 1
        assert "the output folder cannot be written (Read-only file system)" in done.stderr
        assert "Traceback" not in done.stderr


def test_full_disk(picture, small_disk):
    disk = small_disk()
    done = onelook(picture, "-o", disk / "out", *SMALL, "--no-generate_video")
    assert done.returncode == 1
    assert re.search("the disk of the output folder is full|No space left on device", done.stderr)
    assert "Traceback" not in done.stderr
    assert entries(disk) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_leaves_nothing(picture, tmp_path, number, code):
    """Late, when cut-out and model are made and the video is being filmed."""
    running = subprocess.Popen(
        [sys.executable, "-m", "onelook.cli", picture, "-o", tmp_path / "out", *SMALL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said = b""
    while b"video" not in said and (more := running.stderr.read1()):
        said += more
    running.send_signal(number)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == code, stderr
    assert b"onelook: interrupted" in stderr
    assert b"Traceback" not in stderr
    assert entries(tmp_path) == ["mushroom.png"]


def test_failed_picture_leaves_earlier_results_alone(picture, tmp_path):
    out = tmp_path / "out"
    assert onelook(picture, "-o", out, *CUT_OUT_ONLY).returncode == 0
    before = (out / "mushroom_no_background.png").read_bytes()
    picture.write_bytes(mushroom_png()[:200])  # now it is truncated
    done = onelook(picture, "-o", out, *CUT_OUT_ONLY)
    assert done.returncode == 1
    assert entries(out) == ["mushroom_no_background.png"]
    assert (out / "mushroom_no_background.png").read_bytes() == before
