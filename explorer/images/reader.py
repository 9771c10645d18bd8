"""A process that decodes pictures for this one, whose threads would wait for each other: Python
runs one of them at a time, and half of decoding is Python.

It reads from a pipe what to decode (``explorer.child``).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from io import BufferedReader
from typing import IO, cast

import numpy as np

from explorer import child
from explorer.images.pictures import view
from explorer.records import BadInput, Preprocess

LOG = logging.getLogger(__name__)

PIPE_BYTES = 1 << 20
"""What a pipe holds, if the system lets us say: some pictures, made before they are asked for."""

MADE, REFUSED = b"\0", b"\1"
SIZE = struct.Struct("<I")


class Reader:
    """A process that makes views of pictures under ``root``. OSError where none can be started."""

    def __init__(self, root: str, preprocess: Preprocess) -> None:
        self._root = root
        self._preprocess = preprocess
        self._process = child.start("explorer.images.reader")
        self._to = child.given(self._process.stdin)
        self._from = cast(BufferedReader, child.given(self._process.stdout))
        self._ended = self._missed = False
        _widen(self._from)
        self._say({"root": os.path.abspath(root), "preprocess": asdict(preprocess)})

    def begin(self, paths: Sequence[str]) -> None:
        """Have these pictures decoded, relative to the root; all that were begun before were
        taken."""
        self._say(list(paths))

    def take(self, path: str, out: np.ndarray) -> None:
        """Wait for the next picture, which is at ``path``, and write its view into ``out``
        u8[S,S,3]. Raises BadInput as ``pictures.view`` does, EOFError once ``end`` was called. If
        the process was killed, the picture is decoded here."""
        how = self._from.read(1)
        if how == REFUSED and (reason := self._reason()):
            raise BadInput(reason)
        if how == MADE and self._from.readinto(out.data.cast("B")) == out.nbytes:
            return
        if self._ended:
            raise EOFError
        if not self._missed:
            LOG.warning("A process that decodes pictures was killed: a thread does its work.")
        self._missed = True
        out[:] = view(self._root, path, self._preprocess)

    def end(self) -> None:
        """End the process, whatever it is at; who waits for a picture hears of it."""
        self._ended = True
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of it; nobody may wait for a picture."""
        self._ended = True
        child.end(self._process)

    def _reason(self) -> str:
        """Why a picture was refused; nothing if the process ended meanwhile."""
        size = self._from.read(SIZE.size)
        told = self._from.read(*SIZE.unpack(size)) if len(size) == SIZE.size else b""
        return told.decode("utf-8", "surrogateescape")

    def _say(self, what: object) -> None:
        with suppress(OSError):  # it has been killed
            self._to.write(json.dumps(what).encode() + b"\n")
            self._to.flush()


def main() -> None:
    """Decode what comes in until there is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    about = json.loads(sys.stdin.buffer.readline())
    preprocess = Preprocess(**about["preprocess"])
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        for path in json.loads(line):
            try:
                made = np.ascontiguousarray(view(about["root"], path, preprocess))
            except BadInput as error:
                reason = str(error).encode("utf-8", "surrogateescape")
                out.write(REFUSED + SIZE.pack(len(reason)) + reason)
            else:
                out.write(MADE)
                out.write(made.data.cast("B"))
            out.flush()


def _widen(pipe: IO[bytes]) -> None:
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


if __name__ == "__main__":
    main()
