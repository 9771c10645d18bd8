"""Batches side by side, each on its share of the cores.

Small maps divide badly among cores; and where another program wants a core, one batch waits for it
instead of each convolution of every batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from threading import Barrier, Event, local
from typing import TypeVar

import torch

WORTH = 1 << 24
"""Products that are worth dividing."""
READING = 16
"""Reading a number takes as long as so many products."""
IDLE_SECONDS = 0.1

Item = TypeVar("Item")
Made = TypeVar("Made")


_here = local()  # .given_up: of the work that this thread does, an event


def side_by_side(
    function: Callable[[Item], Made],
    items: Iterable[Item],
    at_once: int,
    idle: Callable[[], None] | None = None,
) -> Iterator[Made]:
    """``function`` of each item, in their order; ``at_once`` of them are under way, and one waits
    for its turn. ``idle`` is called ten times in a second of waiting for one. Who stops asking, or
    raises there, waits for those that are under way, which end where they ask to ``go_on``."""
    under_way: list[Future[Made]] = []
    given_up = Event()

    def work(item: Item) -> Made:
        _here.given_up = given_up
        return function(item)

    def first() -> Made:
        while idle and not wait(under_way[:1], IDLE_SECONDS).done:
            idle()
        return under_way.pop(0).result()

    try:
        for item in items:
            under_way.append(_pool(at_once).submit(work, item))
            if len(under_way) > at_once:
                yield first()
        while under_way:
            yield first()
    finally:
        given_up.set()
        wait([each for each in under_way if not each.cancel()])


def go_on() -> None:
    """For long work side by side to ask now and then: raises CancelledError where nobody waits for
    it any more."""
    given_up: Event | None = getattr(_here, "given_up", None)
    if given_up and given_up.is_set():
        raise CancelledError


def divided(work: Callable[[tuple[int, int]], None], total: int, each: int) -> None:
    """Work from 0 to ``total``, in which PyTorch computes nothing, in parts on all cores that this
    thread may use; in one if it is not worth it, at so many products ``each``."""
    cores = min(torch.get_num_threads(), total) if total * each > WORTH else min(total, 1)
    if cores == 0:
        return
    first, *more = pairwise(total * core // cores for core in range(cores + 1))
    others = [_hands().submit(work, part) for part in more]
    try:
        work(first)
    finally:
        wait(others)
    for other in others:
        other.result()


@cache
def _hands() -> ThreadPoolExecutor:
    """Threads apart from those of ``side_by_side``, which may wait for these."""
    return ThreadPoolExecutor(os.cpu_count(), "parts")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that share the cores; all are started now, because the latest word on how many cores
    a thread uses is also that of threads to come, until they have asked for it once."""
    cores = torch.get_num_threads()
    begun = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()
        torch.set_num_threads(max(1, cores // threads))
        begun.wait()

    pool = ThreadPoolExecutor(threads, "cores", begin)
    for _ in range(threads):
        pool.submit(int)
    begun.wait()
    torch.set_num_threads(cores)
    return pool
