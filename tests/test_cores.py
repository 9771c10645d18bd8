"""Batches side by side: in order, on their share of the cores, ended when nobody asks any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest
import torch

from explorer.networks.cores import WORTH, divided, go_on, side_by_side

PATIENCE = 20.0


def test_answers_come_in_the_order_of_the_items() -> None:
    assert list(side_by_side(lambda number: number * number, range(20), 3)) == [
        number * number for number in range(20)
    ]
    assert list(side_by_side(lambda number: number, range(0), 2)) == []


def test_so_many_are_under_way_at_once() -> None:
    together = threading.Barrier(2)

    def meet(number: int) -> int:
        together.wait(PATIENCE)
        return number

    assert list(side_by_side(meet, range(6), 2)) == list(range(6))


def test_each_has_its_share_of_the_cores() -> None:
    whole = torch.get_num_threads()
    shares = set(side_by_side(lambda _: torch.get_num_threads(), range(8), 4))
    assert shares == {max(1, whole // 4)}
    assert torch.get_num_threads() == whole


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    made = side_by_side(lambda number: number, items(), 2)
    assert next(made) == 0
    assert len(taken) == 3


def test_whoever_stops_asking_leaves_nothing_running() -> None:
    begun, running = [], threading.Semaphore(0)

    def slow(number: int) -> int:
        begun.append(number)
        assert number == 0 or running.acquire(timeout=PATIENCE)
        return number

    made = side_by_side(slow, range(9), 2)
    assert next(made) == 0
    running.release(9)
    made.close()  # type: ignore[attr-defined]
    count = len(begun)
    assert list(side_by_side(lambda number: number, range(2), 2)) == [0, 1]
    assert len(begun) == count <= 3


def test_work_that_is_given_up_ends_where_it_asks_whether_to_go_on() -> None:
    ended, begun = [], threading.Barrier(3)

    def endless(number: int) -> None:
        begun.wait(PATIENCE)
        try:
            while True:
                go_on()
        except CancelledError:
            ended.append(number)

    def lose_interest() -> None:
        begun.wait(PATIENCE)
        raise KeyError

    with pytest.raises(KeyError):
        next(side_by_side(endless, range(2), 2, lose_interest))
    assert sorted(ended) == [0, 1]
    assert list(side_by_side(lambda number: go_on(), range(4), 2)) == [None] * 4
    go_on()  # who is not at work side by side goes on


def test_who_waits_is_asked_now_and_then() -> None:
    asked = threading.Semaphore(0)

    def slow(number: int) -> int:
        assert number or asked.acquire(timeout=PATIENCE)
        return number

    assert list(side_by_side(slow, range(3), 2, asked.release)) == [0, 1, 2]


def test_what_fails_is_raised_where_it_is_asked_for() -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    made = side_by_side(fails, range(9), 2)
    assert [next(made), next(made), next(made)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(made)


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("each", [1, WORTH])
def test_parts_are_the_whole_and_none_is_empty(total: int, each: int) -> None:
    parts: list[tuple[int, int]] = []
    divided(parts.append, total, each)
    assert all(first < last for first, last in parts)
    assert [at for part in sorted(parts) for at in range(*part)] == list(range(total))
    cores = torch.get_num_threads() if total * each > WORTH else 1
    assert len(parts) == min(total, cores)


def test_work_that_fails_in_one_part_fails_when_all_have_ended() -> None:
    ended = []

    def work(part: tuple[int, int]) -> None:
        if part[0]:
            raise ValueError("part")
        ended.append(part)

    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ValueError, match="part"):
            divided(work, 9, WORTH)
    finally:
        torch.set_num_threads(threads)
    assert ended == [(0, 3)]


def test_work_is_divided_within_work_side_by_side() -> None:
    """As many threads wait for parts as there are threads for it."""
    done = threading.Semaphore(0)

    def outer(_: int) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        divided(lambda part: done.release(), 2, WORTH)
        torch.set_num_threads(before)

    list(side_by_side(outer, range(8), 2))
    assert all(done.acquire(timeout=PATIENCE) for _ in range(16))
