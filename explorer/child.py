"""Processes of our own on one core each, which read from a pipe what to do: so they end when this
process does, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

HOME = Path(__file__).resolve().parents[1]
SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def start(module: str) -> subprocess.Popen[bytes]:
    """A process that runs a module of ours, with pipes to and from it. OSError where the system
    gives none."""
    return subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=HOME,
        env={**os.environ, **SINGLE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, whatever it is at, and let go of its pipes."""
    process.kill()
    process.wait()
    with suppress(OSError):  # what it was still to read
        given(process.stdin).close()
    given(process.stdout).close()


def given(stream: IO[bytes] | None) -> IO[bytes]:
    """A pipe that was asked for."""
    assert stream is not None, "a pipe was asked for"
    return stream
