"""Pictures decoded ahead of the device, in order, in batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field

import numpy as np
import torch

from explorer.images.pictures import view
from explorer.records import BadInput, Preprocess

AHEAD = 3
"""Batches that wait for the device, beside one in the hands of each thread."""
PATIENCE_SECONDS = 60.0
"""A picture that takes longer (a file made to be slow, a disk that hangs) is left out."""
GLANCE_SECONDS = 1.0

Unreadable = tuple[int, str, str]  # offset in the batch, relative path, reason


@dataclass(frozen=True)
class Views:
    """Pictures as the network sees them, u8[B,S,S,3]; black where ``unreadable`` says that there is
    none."""

    pixels: np.ndarray
    unreadable: tuple[Unreadable, ...]


@dataclass
class _Task:
    """A batch in the making, and since when its thread has been at which picture."""

    paths: Sequence[str]
    at: str = ""
    since: float = field(default_factory=time.monotonic)


class Decoder:
    """Makes batches of pictures under ``root`` by ``threads`` threads; ``pinned`` puts them where a
    CUDA device reads them by itself."""

    def __init__(
        self,
        root: str,
        preprocess: Preprocess,
        batch: int,
        threads: int = 1,
        pinned: bool = False,
    ) -> None:
        self._root = root
        self._preprocess = preprocess
        self._batch = batch
        self._threads = threads
        self._pinned = pinned
        self._given_up: set[str] = set()

    def batches(self, paths: Sequence[str]) -> Iterator[Views]:
        """The pictures at ``paths``, relative to the root, in their order."""
        waiting: deque[tuple[_Task, Future[Views]]] = deque()
        self._pool = self._new_pool()
        try:
            for first in range(0, len(paths), self._batch):
                task = _Task(paths[first : first + self._batch])
                waiting.append((task, self._pool.submit(self._decode, task)))
                if len(waiting) >= AHEAD + self._threads:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="decode")

    def _next(self, waiting: deque[tuple[_Task, Future[Views]]]) -> Views:
        """The first batch, once it is there. A picture that takes too long is given up, and the
        thread that is at it left to itself."""
        while True:
            task, future = waiting[0]
            try:
                views = future.result(GLANCE_SECONDS)
            except NotYet:
                if task.at and time.monotonic() - task.since > PATIENCE_SECONDS:
                    self._given_up.add(task.at)
                    self._start_over(waiting)
                continue
            waiting.popleft()
            return views

    def _start_over(self, waiting: deque[tuple[_Task, Future[Views]]]) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._new_pool()
        for number, (old, future) in enumerate(waiting):
            if not future.done() or future.cancelled():
                task = _Task(old.paths)
                waiting[number] = (task, self._pool.submit(self._decode, task))

    def _decode(self, task: _Task) -> Views:
        side = self._preprocess.crop
        shape = (len(task.paths), side, side, 3)
        pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._pinned).numpy()
        unreadable: list[Unreadable] = []
        for offset, path in enumerate(task.paths):
            task.at, task.since = path, time.monotonic()
            try:
                if path in self._given_up:
                    raise BadInput(
                        f"The picture '{path}' was not decoded in {PATIENCE_SECONDS:.0f} s: "
                        "make it smaller or save it anew."
                    )
                pixels[offset] = view(self._root, path, self._preprocess)
            except BadInput as error:
                unreadable.append((offset, path, str(error)))
        return Views(pixels, tuple(unreadable))
