"""Pictures decoded ahead of the device, in order, in batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread

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
    made: Future[Views] = field(default_factory=Future)


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

    def batches(
        self, paths: Sequence[str], idle: Callable[[], None] = lambda: None
    ) -> Iterator[Views]:
        """The pictures at ``paths``, relative to the root, in their order. ``idle`` is called each
        second of waiting; what it raises ends the work."""
        waiting: deque[_Task] = deque()
        self._crew = self._new_crew()
        try:
            for first in range(0, len(paths), self._batch):
                waiting.append(_Task(paths[first : first + self._batch]))
                self._crew.put(waiting[-1])
                if len(waiting) >= AHEAD + self._threads:
                    yield self._next(waiting, idle)
            while waiting:
                yield self._next(waiting, idle)
        finally:
            self._dismiss(waiting)

    def _new_crew(self) -> SimpleQueue[_Task | None]:
        """Threads that decode what is put into the queue, until they find None. The process may end
        before they do: one may hang."""
        queue: SimpleQueue[_Task | None] = SimpleQueue()
        for _ in range(self._threads):
            Thread(target=self._work, args=(queue,), name="decode", daemon=True).start()
        return queue

    def _work(self, queue: SimpleQueue[_Task | None]) -> None:
        while (task := queue.get()) is not None:
            if not task.made.set_running_or_notify_cancel():
                continue
            try:
                task.made.set_result(self._decode(task))
            except BaseException as error:  # noqa: BLE001 - raised where the batch is waited for
                task.made.set_exception(error)

    def _dismiss(self, waiting: Iterable[_Task]) -> None:
        """Let the threads end after what they are at; nothing else is begun."""
        for task in waiting:
            task.made.cancel()
        for _ in range(self._threads):
            self._crew.put(None)

    def _next(self, waiting: deque[_Task], idle: Callable[[], None]) -> Views:
        """The first batch, once it is there. A picture that takes too long is given up, and the
        thread that is at it left to itself."""
        while True:
            task = waiting[0]
            try:
                views = task.made.result(GLANCE_SECONDS)
            except NotYet:
                if task.at and time.monotonic() - task.since > PATIENCE_SECONDS:
                    self._given_up.add(task.at)
                    self._start_over(waiting)
                idle()
                continue
            waiting.popleft()
            return views

    def _start_over(self, waiting: deque[_Task]) -> None:
        """Have new threads do what is not done."""
        self._dismiss(waiting)
        self._crew = self._new_crew()
        for number, task in enumerate(waiting):
            if not task.made.done() or task.made.cancelled():
                waiting[number] = _Task(task.paths)
                self._crew.put(waiting[number])

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
