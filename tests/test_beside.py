"""Divisions made by other processes are those made here."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from explorer.compute import beside
from explorer.compute.division import division


def drawn(seed: int, groups: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.gamma(0.3, size=(groups, 40))
    rows = centres[rng.integers(groups, size=60)] + rng.gamma(0.3, 0.1, size=(60, 40))
    rows[:3] = 0
    return rows.astype(np.float32)


def same(one: object, other: object) -> None:
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, vars(other)[name], err_msg=name)


@pytest.mark.parametrize("k", [0, 3])
def test_they_are_the_same_to_the_bit(k: int) -> None:
    some = [drawn(seed, 2 + seed) for seed in range(3)]
    with beside.helpers(2) as helpers:
        for rows in some:
            helpers.begin(rows, k, 5)
        assert len(helpers._busy) == 2, "the third has nobody to do it"
        for rows in some:
            same(beside.divided(rows, k, 5), division(rows, k, 5))
        assert len(helpers._idle) == 2, "both are free again"
    same(beside.divided(some[0], k, 5), division(some[0], k, 5))


def test_what_was_not_begun_is_made_here() -> None:
    with beside.helpers(1) as helpers:
        helpers.begin(drawn(0), 2, 0)
        same(beside.divided(drawn(0), 2, 1), division(drawn(0), 2, 1))
        assert helpers.take(drawn(1), 2, 0) is None
        assert helpers.take(drawn(0), 2, 0) is not None


def test_a_process_that_is_killed_is_done_without() -> None:
    with beside.helpers(2) as helpers:
        helpers.begin(drawn(0), 2, 0)
        helpers._busy[0][1].kill()
        same(beside.divided(drawn(0), 2, 0), division(drawn(0), 2, 0))
        helpers._idle[0].kill()
        helpers._idle[0].wait()
        helpers.begin(drawn(1), 2, 0)
        same(beside.divided(drawn(1), 2, 0), division(drawn(1), 2, 0))
        assert not helpers._idle
        assert not helpers._busy


def test_an_answer_that_breaks_off_is_none() -> None:
    sent = io.BytesIO()
    beside._send(sent, {"k": 2}, {"rows": drawn(0)})
    whole = sent.getvalue()
    found = beside._received(io.BytesIO(whole))
    assert found is not None
    np.testing.assert_array_equal(found[1]["rows"], drawn(0))
    for size in (0, 5, whole.index(b"\n") + 1, len(whole) - 1):
        assert beside._received(io.BytesIO(whole[:size])) is None


def test_where_no_process_can_be_started_all_is_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(beside, "_start", refused)
    with beside.helpers(2) as helpers:
        helpers.begin(drawn(0), 2, 0)
        same(beside.divided(drawn(0), 2, 0), division(drawn(0), 2, 0))


def test_rows_that_cannot_be_divided_are_left_to_who_asks() -> None:
    bad = np.full((4, 3), np.nan, np.float32)
    with beside.helpers(1) as helpers:
        helpers.begin(bad, 2, 0)
        assert helpers.take(bad, 2, 0) is None
        helpers.begin(drawn(0), 2, 0)
        assert helpers.take(drawn(0), 2, 0) is not None


def test_they_end_with_the_process_that_began_them() -> None:
    code = (
        "import os, signal; from explorer.compute.beside import Beside; made = Beside(2); "
        "print(*[each.pid for each in made._idle], flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    home = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=home)
    waiting = [int(pid) for pid in run.stdout.split()]
    assert len(waiting) == 2
    end = time.monotonic() + 30
    while waiting and time.monotonic() < end:
        waiting = [pid for pid in waiting if _runs(pid)]
        time.sleep(0.1)
    assert not waiting


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"
