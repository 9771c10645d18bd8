"""Files that one process holds at a time: the worker's place, a scan's, and an actor's folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from explorer.disk import private_folder, storing
from explorer.records import Unavailable

LOCK = "worker.lock"
HELD = "held.lock"
ACTOR = "explorer-actor-"


def hold(path: Path) -> TextIO | None:
    """Lock a file against other processes and threads until it is closed or this process ends.
    None if it is held already."""
    with storing(path.parent):
        file = path.open("a", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def worker_alive(folder: Path) -> bool:
    """Whether a worker runs on this cache folder."""
    if not (folder / LOCK).exists():
        return False
    file = hold(folder / LOCK)
    if file is None:
        return True
    file.close()
    return False


def take_place(folder: Path) -> TextIO:
    """The right to be the worker of a cache folder; Unavailable if another process has it."""
    for _ in range(10):  # whoever looks whether a worker is alive holds the file for a moment
        file = hold(private_folder(folder) / LOCK)
        if file is not None:
            return file
        time.sleep(0.05)
    raise Unavailable(
        f"A worker already runs on {folder}: stop it first, or set EXPLORER_CACHE_DIR to another "
        "folder."
    )


@contextmanager
def actors_folder() -> Iterator[Path]:
    """A temporary folder for as long as the context lasts. What actors left that were killed in
    theirs goes as well."""
    for left in Path(tempfile.gettempdir()).glob(f"{ACTOR}*"):
        _remove_if_left(left)
    held = None
    while held is None:  # another actor may take it for one that was left
        folder = Path(tempfile.mkdtemp(prefix=ACTOR))
        held = hold(folder / HELD)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()


def _remove_if_left(folder: Path) -> None:
    """Remove a folder that nobody holds, if it is ours."""
    with suppress(OSError, Unavailable):
        about = folder.lstat()
        ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
        if ours and (folder / HELD).exists() and (held := hold(folder / HELD)):
            shutil.rmtree(folder, ignore_errors=True)
            held.close()
