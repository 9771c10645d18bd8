"""Work for actors in tests, in a module that they load at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from explorer.records import BadInput


@contextmanager
def squares(fault: int) -> Iterator[Any]:
    """Work that fails at one number, by nobody's fault at 7, and kills from 100 on."""

    def work(number: int) -> int:
        if number == fault:
            raise BadInput("This number is not squared: choose another.")
        if number >= 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

    yield work
