"""Where processes write what happened: a rotating file in the cache folder, and the console."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

from explorer.disk import private_folder, storing

LARGEST = 2 * 2**20
KEPT = 3
FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to(folder: Path, name: str, console: bool = True) -> Path:
    """Log the explorer (all) and its libraries (warnings) to ``folder/logs/name.log``, at most
    four files of 2 MB, and to a ``console`` (stderr) what matters to who runs it. Returns the
    file."""
    path = private_folder(folder / "logs") / f"{name}.log"
    with storing(folder):
        file = logging.handlers.RotatingFileHandler(path, "a", LARGEST, KEPT, encoding="utf-8")
    file.setFormatter(logging.Formatter(FORM))
    ours = logging.getLogger("explorer")
    ours.setLevel(logging.DEBUG)
    if console:
        screen = logging.StreamHandler(sys.stderr)
        screen.setLevel(logging.INFO)
        screen.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(screen)
    logging.getLogger().addHandler(file)
    logging.captureWarnings(True)
    return path
