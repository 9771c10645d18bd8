"""Work through items in batches that shrink when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from explorer.lab import Report
from explorer.records import OutOfMemory

Items = TypeVar("Items", bound=Any)
Result = TypeVar("Result")


def in_batches(function: Callable[[Items], Result], items: Items, size: int) -> list[Result]:
    """``function`` of successive slices of ``items``, at most ``size`` long, in order.

    A slice that exceeds the memory is halved and tried again, and later ones stay that small.
    Raises OutOfMemory when even one item does not fit; other errors pass through.
    """
    results: list[Result] = []
    start = 0
    while start < len(items):
        batch: Items = items[start : start + size]
        fitted = True
        try:
            results.append(function(batch))
        except (RuntimeError, MemoryError) as error:
            if not OutOfMemory.told_by(error):
                raise
            fitted = False
        if fitted:
            start += len(batch)
            continue
        if len(batch) == 1:
            raise OutOfMemory(
                "There is too little memory for a single picture: close other programs, or set "
                "EXPLORER_DEVICE=cpu."
            )
        size = max(1, len(batch) // 2)
        _release()  # after the exception is gone, and with it the tensors that it held
    return results


def reported(
    function: Callable[[np.ndarray], np.ndarray],
    items: np.ndarray,
    size: int,
    what: str,
    report: Report,
    among: tuple[int, int] | None = None,
) -> np.ndarray:
    """What ``in_batches`` gives, in one, reporting between batches; ``among`` is how many items
    went before these and how many there are in all, if these are not all."""
    before, total = among or (0, len(items))
    found = []
    for start in range(0, len(items), size):
        done = before + start
        report(done / total, f"{what}: {done:,} of {total:,}")
        found += in_batches(function, items[start : start + size], size)
    return np.concatenate(found)


def _release() -> None:
    gc.collect()
    torch.cuda.empty_cache()
