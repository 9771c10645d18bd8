"""The error hierarchy. Each message is one sentence: what happened and what to do about it."""

from __future__ import annotations

import re


class ExplorerError(Exception):
    """The root of every error that a person is meant to read."""


class BadInput(ExplorerError):
    """Something the person gave (a name, a file, a parameter) cannot be used. Exit code 2."""


class DeadNeuron(BadInput):
    """The channel fires on no image of the set, so it has no references to split or explain."""


class NoCluster(BadInput):
    """No virtual neuron comes of it: there are too few references, they are alike, or the settings
    drop every group."""


class MissingRule(BadInput):
    """A module has no relevance rule; the message names it and offers gradient x activation."""


class Unavailable(ExplorerError):
    """Something outside (a hub, a package, a device, disk space) cannot be had. Exit code 2."""


class OutOfMemory(Unavailable):
    """The device has too little memory even for the smallest batch."""

    @staticmethod
    def told_by(error: BaseException) -> bool:
        """Whether an error, of whatever library, says that memory ran out."""
        if isinstance(error, MemoryError):
            return True
        return isinstance(error, RuntimeError) and bool(_TOO_LITTLE.search(str(error)))


_TOO_LITTLE = re.compile(
    r"not enough memory|can't allocate memory|out of memory|ALLOC_FAILED|bad.alloc"
    r"|could not create a (memory|primitive(?! desc))",
    re.IGNORECASE,
)
"""PyTorch on a CPU and on a CUDA device, the CUDA libraries, C++, and oneDNN."""


class Cancelled(ExplorerError):
    """The person withdrew the question before it was answered."""
