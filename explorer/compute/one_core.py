"""One core for linear algebra on a few hundred rows.

Threads of a BLAS wait for each other by spinning: on small matrices that costs more than it saves,
and a hundred times as much where another program, such as the browser, wants one of the cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_core() -> Iterator[None]:
    """Inside, or in a function that this decorates, NumPy's linear algebra stays on one core."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
