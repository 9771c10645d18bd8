"""What was used lately, kept in memory up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by name; above ``limit`` bytes the least recently used leave. Safe across threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._bytes = 0

    def get(self, name: Hashable) -> T | None:
        """The value of that name, or None."""
        with self._lock:
            if name not in self._held:
                return None
            self._held.move_to_end(name)
            return self._held[name][0]

    def put(self, name: Hashable, value: T, size: int) -> None:
        """Keep a value of ``size`` bytes; one above the limit is not kept."""
        with self._lock:
            if size > self._limit or name in self._held:
                return
            self._held[name] = (value, size)
            self._bytes += size
            while self._bytes > self._limit:
                self._bytes -= self._held.popitem(last=False)[1][1]
