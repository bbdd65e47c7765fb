"""The scratch folder: its owner's alone, empty on demand, and never left for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onelook.scratch import Scratch

OWNER = """
import sys, time
from pathlib import Path
from onelook.scratch import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.folder / "output.glb").write_bytes(b"x" * 1000)
print(scratch.folder, flush=True)
if len(sys.argv) > 2:
    time.sleep(60)
"""


def _start_owner(root: Path, *arguments: str) -> tuple[subprocess.Popen, Path]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, root, *arguments], stdout=subprocess.PIPE, text=True
    )
    return owner, Path(owner.stdout.readline().strip())


@pytest.fixture
def living_owner(tmp_path):
    owner, folder = _start_owner(tmp_path, "stay")
    yield owner, folder
    owner.kill()
    owner.wait()


def test_empty_removes_everything_but_the_folder_and_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    scratch = Scratch(tmp_path / "root")
    (scratch.folder / "output.glb").write_bytes(b"x")
    (scratch.folder / ".onelook-staging" / "deep").mkdir(parents=True)
    (scratch.folder / ".onelook-staging" / "deep" / "part").write_bytes(b"x")
    (scratch.folder / "link").symlink_to(outside)
    (scratch.folder / "broken").symlink_to(tmp_path / "nowhere")
    scratch.empty()
    assert list(scratch.folder.iterdir()) == []
    assert (outside / "kept.txt").read_text() == "kept"
    scratch.empty()  # nothing to do is fine


def test_empty_brings_a_lost_folder_back(tmp_path):
    scratch = Scratch(tmp_path)
    scratch.folder.rmdir()  # a cleaner of temporary files did it
    scratch.empty()
    assert list(scratch.folder.iterdir()) == []


def test_folder_is_private(tmp_path):
    assert Scratch(tmp_path).folder.stat().st_mode & 0o077 == 0


def test_folder_goes_with_its_process(tmp_path):
    owner, folder = _start_owner(tmp_path)
    assert owner.wait(20) == 0
    assert folder.parent == tmp_path
    assert not folder.exists()


def test_folder_of_a_killed_process_is_removed_by_the_next(tmp_path, living_owner):
    owner, folder = living_owner
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (folder / "output.glb").exists()  # nobody could clean up
    scratch = Scratch(tmp_path)
    assert list(tmp_path.iterdir()) == [scratch.folder]


def test_folder_of_a_killed_process_is_removed_although_its_id_is_in_use_again(tmp_path):
    """After a container restarts the new server often has the process id of the old one."""
    orphan = tmp_path / f"onelook-scratch-{os.getpid()}-abc"
    orphan.mkdir()
    scratch = Scratch(tmp_path)
    assert list(tmp_path.iterdir()) == [scratch.folder]


def test_folder_of_a_living_process_is_left_alone(tmp_path, living_owner):
    _, folder = living_owner
    own = Scratch(tmp_path), Scratch(tmp_path)  # also the other one of this process
    assert (folder / "output.glb").exists()
    assert len({folder, own[0].folder, own[1].folder}) == 3
    assert all(scratch.folder.is_dir() for scratch in own)


def test_other_files_beside_it_are_left_alone(tmp_path):
    (tmp_path / "onelook-scratch-notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    Scratch(tmp_path)
    assert (tmp_path / "onelook-scratch-notes.txt").exists()
    assert (tmp_path / "other").exists()
