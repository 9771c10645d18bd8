"""Divisions made by processes beside this one, where many neurons are split one after another.

They read what to divide from a pipe (``explorer.child``).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

import numpy as np

from explorer import child
from explorer.compute.division import Division, division
from explorer.records import BadInput

Work = tuple[bytes, tuple[int, ...], int, int]
"""Rows, their shape, k and seed."""


class Beside:
    """``count`` processes that divide rows, or as many as the system lets us have."""

    def __init__(self, count: int) -> None:
        self._idle: list[subprocess.Popen[bytes]] = []
        with suppress(OSError):
            for _ in range(count):
                self._idle.append(_start())
        self._busy: list[tuple[Work, subprocess.Popen[bytes]]] = []

    def begin(self, rows: np.ndarray, k: int, seed: int) -> None:
        """Have rows f32[K,D] divided that will be asked for; nothing happens if all are busy."""
        work = _work(rows, k, seed)
        if not self._idle or any(begun == work for begun, _ in self._busy):
            return
        process = self._idle.pop()
        try:
            _send(child.given(process.stdin), {"k": k, "seed": seed}, {"rows": rows})
        except OSError:  # it has been killed
            child.end(process)
        else:
            self._busy.append((work, process))

    def take(self, rows: np.ndarray, k: int, seed: int) -> Division | None:
        """What was begun, waited for; None if it was not, or went wrong there."""
        work = _work(rows, k, seed)
        at = next((at for at, (begun, _) in enumerate(self._busy) if begun == work), None)
        if at is None:
            return None
        _, process = self._busy.pop(at)
        found = _received(child.given(process.stdout))
        if found is None:  # it has been killed
            child.end(process)
            return None
        self._idle.append(process)
        fields: dict[str, Any] = {**found[0], **found[1]}
        return Division(**fields) if fields else None

    def end(self) -> None:
        """End the processes."""
        for process in (*self._idle, *(process for _, process in self._busy)):
            child.end(process)


_helping: list[Beside] = []


@contextmanager
def helpers(count: int) -> Iterator[Beside]:
    """Inside, ``divided`` takes what these processes have made."""
    beside = Beside(count)
    _helping.append(beside)
    try:
        yield beside
    finally:
        _helping.remove(beside)
        beside.end()


def divided(rows: np.ndarray, k: int, seed: int) -> Division:
    """``division``, made beside this process if that was begun."""
    for beside in _helping:
        if (found := beside.take(rows, k, seed)) is not None:
            return found
    return division(rows, k, seed)


def main() -> None:
    """Divide what comes in until there is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    while (found := _received(sys.stdin.buffer)) is not None:
        about, arrays = found
        try:
            made = vars(division(arrays["rows"], **about))
        except (BadInput, ValueError, MemoryError):  # who asks will see for itself
            made = {}
        _send(
            sys.stdout.buffer,
            {name: each for name, each in made.items() if isinstance(each, dict)},
            {name: each for name, each in made.items() if isinstance(each, np.ndarray)},
        )


def _start() -> subprocess.Popen[bytes]:
    return child.start("explorer.compute.beside")


def _work(rows: np.ndarray, k: int, seed: int) -> Work:
    return rows.tobytes(), rows.shape, k, seed


def _send(stream: IO[bytes], about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """One line of JSON, then the bytes of the arrays that it names."""
    shapes = [[name, each.dtype.str, each.shape] for name, each in arrays.items()]
    stream.write(json.dumps({"about": about, "arrays": shapes}).encode() + b"\n")
    for each in arrays.values():
        stream.write(np.ascontiguousarray(each).tobytes())
    stream.flush()


def _received(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """What was sent; None at the end, which may come in the middle."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    head, arrays = json.loads(line), {}
    for name, dtype, shape in head["arrays"]:
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        if len(data := stream.read(size)) < size:
            return None
        arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return head["about"], arrays


if __name__ == "__main__":
    main()
