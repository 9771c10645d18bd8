"""The cache folder: private, and its failures told in one sentence."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from explorer.records import Unavailable

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def private_folder(path: Path) -> Path:
    """Make ``path`` (and its parents) a folder of mode 0700; raise Unavailable when it cannot be.

    Where the folder belongs to someone else who lets us write (a mounted volume), its mode is
    left as it is.
    """
    with storing(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            path.chmod(0o700)
        except PermissionError:
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
    return path


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Around anything that touches ``folder``: a failing disk is raised as Unavailable."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(_sentence(folder, error)) from error


def _sentence(folder: Path, error: OSError | sqlite3.Error) -> str:
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if number in FULL or "disk is full" in text:
        return (
            f"The disk that holds {folder} is full: free some space or set EXPLORER_CACHE_DIR "
            "to a folder on another disk (what is stored stays readable)."
        )
    if number in FORBIDDEN or "readonly" in text or "unable to open" in text:
        return (
            f"The cache folder {folder} cannot be written: give it to the user who runs the "
            "explorer, or set EXPLORER_CACHE_DIR to another folder."
        )
    if "malformed" in text or "not a database" in text:
        return f"A database in {folder} is damaged: delete it and start again."
    if "locked" in text:
        return f"The cache folder {folder} is busy: try again in a moment."
    return f"The cache folder {folder} cannot be used ({text}): set EXPLORER_CACHE_DIR to another."
