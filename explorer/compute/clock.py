"""How long each stage of the work takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """``seconds`` spent in each stage so far. A stage inside another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as ``name``."""
        start, before = time.monotonic(), self._inner
        self._inner = 0.0
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[name] += spent - self._inner  # type: ignore[assignment]
            self._inner = before + spent
