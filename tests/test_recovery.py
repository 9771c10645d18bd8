"""A worker killed at work: the next one finishes the job, and the answer is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from tiny import LAYER, LOWER, NETWORK, WEIGHTS, draw_pictures

from explorer.backend import Asker, Backend, SplitQuestion
from explorer.records import Neuron, ReferenceQuery, Split, Status
from explorer.session import InlineQueue
from explorer.settings import load_settings

ASKER = Asker("tester", "test")
QUESTION = SplitQuestion(
    Neuron("tiny", LAYER, 3), "pure", {"k": 2, "lower": LOWER}, ReferenceQuery(count=40)
)
LONGEST_WAIT = 60.0
T = TypeVar("T")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recovery")
    pictures = draw_pictures(folder / "pictures", each=100)
    path = folder / "explorer.toml"
    path.write_text(
        f'[[workspace]]\nname = "tiny"\nnetwork = "{NETWORK}"\nweights = "{WEIGHTS}"\n'
        f'images = "{pictures}"\nlayers = ["{LAYER}"]\n'
    )
    return path


def environment(config: Path, cache: Path) -> dict[str, str]:
    names = {"EXPLORER_CONFIG": str(config), "EXPLORER_CACHE_DIR": str(cache)}
    return {**names, "EXPLORER_DEVICE": "cpu"}


@contextmanager
def worker(config: Path, cache: Path) -> Iterator[subprocess.Popen[bytes]]:
    run = [sys.executable, "-m", "explorer", "worker"]
    process = subprocess.Popen(
        run, env={**os.environ, **environment(config, cache)}, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def patiently(ask: Callable[[], T | Status]) -> T:
    """Ask as a page does until the answer is there."""
    until = time.monotonic() + LONGEST_WAIT
    while True:
        answer = ask()
        if not isinstance(answer, Status):
            return answer
        assert answer.state not in ("failed", "cancelled"), answer
        assert time.monotonic() < until, answer
        time.sleep(0.05)


def ask_until_running(backend: Backend, title: str, fraction: float) -> None:
    """Ask until a job of that title is at work and this far."""
    until = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < until:
        answer = backend.split(QUESTION, ASKER)
        assert isinstance(answer, Status), "answered before it could be interrupted"
        at_work = answer.state == "running" and answer.title.startswith(title)
        if at_work and answer.fraction >= fraction:
            return
        time.sleep(0.005)
    raise AssertionError(f"{title} never ran")


@pytest.fixture(scope="module")
def expected(config: Path) -> Split:
    """The answer of a run that nobody interrupts."""
    settings = load_settings(environment(config, config.parent / "calm"))
    backend = Backend(settings, InlineQueue(settings))
    return patiently(lambda: backend.split(QUESTION, ASKER))


def scan_bytes(cache: Path) -> bytes:
    """Every array of the one scanned layer."""
    return b"".join(path.read_bytes() for path in sorted((cache / "scans").rglob("*.npy")))


@pytest.mark.parametrize(("title", "fraction"), [("Scanning", 0.2), ("Splitting", 0.0)])
def test_a_killed_worker_is_replaced_and_the_answer_is_identical(
    config: Path, tmp_path: Path, expected: Split, title: str, fraction: float
) -> None:
    backend = Backend(load_settings(environment(config, tmp_path)))
    with worker(config, tmp_path) as first:
        ask_until_running(backend, title, fraction)
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    with worker(config, tmp_path):
        found = patiently(lambda: backend.split(QUESTION, ASKER))
    assert np.array_equal(found.strength, expected.strength)
    assert np.array_equal(found.centroid, expected.centroid)
    assert np.array_equal(found.references.index, expected.references.index)
    assert scan_bytes(tmp_path) == scan_bytes(config.parent / "calm")


def test_twenty_people_cause_one_computation_and_one_may_leave(
    config: Path, tmp_path: Path
) -> None:
    backend = Backend(load_settings(environment(config, tmp_path)))
    people = [Asker(f"person-{number}", "here") for number in range(20)]
    statuses = [backend.split(QUESTION, person) for person in people]
    keys = {status.key for status in statuses if isinstance(status, Status)}
    assert len(keys) == 1
    assert len([status for status in backend.jobs() if status.state == "waiting"]) == 1
    backend.cancel(next(iter(keys)), people[0])
    left = backend.split(QUESTION, people[0])
    stayed = backend.split(QUESTION, people[1])
    assert isinstance(left, Status)
    assert left.state == "cancelled"
    assert isinstance(stayed, Status)
    assert stayed.state == "waiting"


def test_a_cancelled_job_stops_and_can_be_asked_again(config: Path, tmp_path: Path) -> None:
    backend = Backend(load_settings(environment(config, tmp_path)))
    with worker(config, tmp_path):
        ask_until_running(backend, "Scanning", 0.0)
        running = backend.split(QUESTION, ASKER)
        assert isinstance(running, Status)
        backend.cancel(running.key, ASKER)
        until = time.monotonic() + LONGEST_WAIT
        while any(status.state == "running" for status in backend.jobs()):
            assert time.monotonic() < until
            time.sleep(0.05)
        again = backend.split(QUESTION, ASKER)
        assert isinstance(again, Status)
        assert again.state == "cancelled"
        backend.retry(again.key, ASKER)
        found = patiently(lambda: backend.split(QUESTION, ASKER))
    assert found.k == 2
