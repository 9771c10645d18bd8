"""Pictures decoded ahead of the device, in order, in batches."""

from __future__ import annotations

import logging
import math
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
from explorer.images.reader import Reader
from explorer.records import BadInput, Preprocess

AHEAD = 3
"""Batches that wait for the device, beside what is in the hands of each thread."""
PATIENCE_SECONDS = 60.0
"""A picture that takes longer (a file made to be slow, a disk that hangs) is left out."""
GLANCE_SECONDS = 1.0

LOG = logging.getLogger(__name__)

Unreadable = tuple[int, str, str]  # offset in the batch, relative path, reason


@dataclass(frozen=True)
class Views:
    """Pictures as the network sees them, u8[B,S,S,3]; black where ``unreadable`` says that there is
    none."""

    pixels: np.ndarray
    unreadable: tuple[Unreadable, ...]


@dataclass
class _Task:
    """A part of a batch in the making, ``pixels`` u8[b,S,S,3] from its picture ``first`` on, and
    since when its thread has been at which picture."""

    paths: Sequence[str]
    pixels: np.ndarray
    first: int
    at: str = ""
    since: float = field(default_factory=time.monotonic)
    left: bool = False  # what its thread still makes is of no use
    made: Future[list[Unreadable]] = field(default_factory=Future)


class Decoder:
    """Makes batches of pictures under ``root`` by ``threads`` threads, each of which takes ``part``
    pictures at a time (0: whole batches). ``apart`` has each of them read from a process of its
    own, which pays from three threads on, and puts batches where a CUDA device reads them by
    itself. ``kept`` keeps threads and processes for the next pictures."""

    def __init__(
        self,
        root: str,
        preprocess: Preprocess,
        batch: int,
        threads: int = 1,
        part: int = 0,
        apart: bool = False,
        kept: bool = False,
    ) -> None:
        self._root = root
        self._preprocess = preprocess
        self._batch = batch
        self._part = part or batch
        self._threads = threads
        self._apart = apart
        self._kept = kept
        self._crew: SimpleQueue[_Task | None] = SimpleQueue()
        self._hired = 0
        self._readers: list[Reader] = []
        self._given_up: set[str] = set()

    def batches(
        self, paths: Sequence[str], idle: Callable[[], None] = lambda: None
    ) -> Iterator[Views]:
        """The pictures at ``paths``, relative to the root, in their order. ``idle`` is called each
        second of waiting; what it raises ends the work."""
        waiting: deque[_Task] = deque()
        self._hire(math.ceil(len(paths) / self._part))
        ahead = AHEAD * math.ceil(self._batch / self._part) + self._threads
        batches: deque[np.ndarray] = deque()
        try:
            for first in range(0, len(paths), self._batch):
                batches.append(self._begin(paths[first : first + self._batch], waiting))
                if len(waiting) >= ahead:
                    yield self._next(batches.popleft(), waiting, idle)
            while batches:
                yield self._next(batches.popleft(), waiting, idle)
        finally:
            if waiting or not self._kept:
                self._dismiss(waiting)

    def _begin(self, paths: Sequence[str], waiting: deque[_Task]) -> np.ndarray:
        """Have the parts of a batch made; where they will be."""
        side = self._preprocess.crop
        shape = (len(paths), side, side, 3)
        pinned = self._apart and torch.cuda.is_available()
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned).numpy()
        for first in range(0, len(paths), self._part):
            own = slice(first, first + self._part)
            waiting.append(_Task(paths[own], pixels[own], first))
            self._crew.put(waiting[-1])
        return pixels

    def _hire(self, parts: int) -> None:
        """Have threads, no more than ``parts``, that decode what is put into the queue, until they
        find None. The process may end before they do: one may hang."""
        while self._hired < min(self._threads, parts):
            Thread(target=self._work, args=(self._crew,), name="decode", daemon=True).start()
            self._hired += 1

    def _work(self, queue: SimpleQueue[_Task | None]) -> None:
        reader = self._new_reader() if self._apart else None
        try:
            while (task := queue.get()) is not None:
                if not task.made.set_running_or_notify_cancel():
                    continue
                try:
                    task.made.set_result(self._decode(task, reader))
                except BaseException as error:  # noqa: BLE001 - raised where the batch is waited for
                    task.made.set_exception(error)
        finally:
            if reader is not None:
                reader.close()

    def _new_reader(self) -> Reader | None:
        """A process to read from; None if the system gives no more of them."""
        try:
            reader = Reader(self._root, self._preprocess)
        except OSError as error:
            LOG.warning("Pictures are decoded without a process of their own: %s", error)
            return None
        self._readers.append(reader)
        return reader

    def _dismiss(self, waiting: Iterable[_Task]) -> None:
        """Let the threads end after what they are at; nothing else is begun."""
        for task in waiting:
            task.left = True
            task.made.cancel()
        for _ in range(self._hired):
            self._crew.put(None)
        self._crew, self._hired = SimpleQueue(), 0
        while self._readers:
            self._readers.pop().end()

    def _next(self, pixels: np.ndarray, waiting: deque[_Task], idle: Callable[[], None]) -> Views:
        """The first batch, once all parts of it are there."""
        unreadable: list[Unreadable] = []
        for _ in range(0, len(pixels), self._part):
            unreadable += self._finished(waiting, idle)
        return Views(pixels, tuple(unreadable))

    def _finished(self, waiting: deque[_Task], idle: Callable[[], None]) -> list[Unreadable]:
        """What the first part says, once it is there. A picture that takes too long is given up,
        and the thread that is at it left to itself."""
        while True:
            task = waiting[0]
            try:
                unreadable = task.made.result(GLANCE_SECONDS)
            except NotYet:
                if task.at and time.monotonic() - task.since > PATIENCE_SECONDS:
                    self._given_up.add(task.at)
                    self._start_over(waiting)
                idle()
                continue
            waiting.popleft()
            return unreadable

    def _start_over(self, waiting: deque[_Task]) -> None:
        """Have new threads do what is not done."""
        undone = {n for n, task in enumerate(waiting) if not task.made.done()}
        self._dismiss(waiting)
        self._hire(len(undone))
        for number in sorted(undone):
            task = waiting[number]
            waiting[number] = _Task(task.paths, task.pixels, task.first)
            self._crew.put(waiting[number])

    def _decode(self, task: _Task, reader: Reader | None) -> list[Unreadable]:
        """Fill a part of a batch; black where there is no picture."""
        unreadable: list[Unreadable] = []
        if reader is not None:
            reader.begin([path for path in task.paths if path not in self._given_up])
        for offset, path in enumerate(task.paths):
            task.at, task.since = path, time.monotonic()
            try:
                if path in self._given_up:
                    raise BadInput(
                        f"The picture '{path}' was not decoded in {PATIENCE_SECONDS:.0f} s: "
                        "make it smaller or save it anew."
                    )
                if reader is not None:
                    reader.take(path, task.pixels[offset])
                    continue
                made = view(self._root, path, self._preprocess)
                if task.left:
                    break
                task.pixels[offset] = made
            except BadInput as error:
                task.pixels[offset] = 0
                unreadable.append((task.first + offset, path, str(error)))
        return unreadable
