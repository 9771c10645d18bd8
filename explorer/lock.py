"""Files that one process holds at a time: the worker's place, and a scan's."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import TextIO

from explorer.disk import private_folder, storing
from explorer.records import Unavailable

LOCK = "worker.lock"


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
