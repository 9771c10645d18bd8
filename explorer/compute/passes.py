"""Passes over pictures: batches of those that can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from explorer.compute.batching import in_batches
from explorer.compute.device_lab import DeviceLab
from explorer.compute.scan import to_input
from explorer.lab import Report
from explorer.records import BadInput

BATCH = 32


def passing(
    lab: DeviceLab,
    pictures: np.ndarray,
    read: Callable[[Tensor, np.ndarray], Any],
    what: str,
    report: Report,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Batches of readable pictures with what ``read`` makes of them."""

    def part(ids: np.ndarray) -> tuple[np.ndarray, Any] | None:
        kept = np.array([image for image in ids if _readable(lab, int(image))], np.int64)
        return (kept, read(batch(lab, kept), kept)) if len(kept) else None

    for start in range(0, len(pictures), BATCH):
        report(start / len(pictures), f"{what}: {start:,} of {len(pictures):,} pictures")
        for found in in_batches(part, pictures[start : start + BATCH], BATCH):
            if found is not None:
                yield found


def batch(lab: DeviceLab, ids: np.ndarray) -> Tensor:
    return to_input(np.stack([lab.view(int(image)) for image in ids]), lab.model)


def _readable(lab: DeviceLab, image: int) -> bool:
    try:
        lab.view(image)
    except BadInput:
        return False
    return True


def targets_of(names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """i64[K]: the output of the network that each label names, -1 where there is none."""
    known = {name.casefold(): number for number, name in enumerate(classes)}
    return np.array([known.get(name.casefold(), -1) for name in names] or [-1], np.int64)


def host(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
