"""Folders of actors: gone with them, or with the next one."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from explorer.lock import ACTOR, actors_folder

KILLED = """
import os, signal
from explorer.lock import actors_folder
with actors_folder() as folder:
    (folder / "maps").write_bytes(bytes(9))
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_actor_and_leaves_what_it_points_to(temporary: Path) -> None:
    scans = temporary / "scans"
    scans.mkdir()
    (scans / "kept").touch()
    with actors_folder() as own, actors_folder() as other:
        assert own != other
        assert own.stat().st_mode & 0o777 == 0o700
        (own / "scans").symlink_to(scans)
        (own / "answers").mkdir()
    assert [*temporary.iterdir()] == [scans]
    assert (scans / "kept").exists()


def test_what_a_killed_actor_left_goes_with_the_next(temporary: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = Path(killed.stdout.strip())
    assert left.parent == temporary
    assert (left / "maps").exists()
    with actors_folder() as own:
        assert [*temporary.iterdir()] == [own]


def test_nothing_else_goes(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    begun = temporary / f"{ACTOR}begun"
    for folder in (elsewhere, begun):
        folder.mkdir()
    (elsewhere / "held.lock").touch()
    link = temporary / f"{ACTOR}link"
    link.symlink_to(elsewhere)
    with actors_folder() as living, actors_folder():
        assert living.exists()
    assert {*temporary.iterdir()} == {elsewhere, begun, link}
    assert os.listdir(elsewhere) == ["held.lock"]
