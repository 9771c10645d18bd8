"""Variants timed in turn, so that a noisy machine is as noisy for each of them.

A round runs every variant once, in an order that is drawn anew, as what ran just before may slow
down the next. Figures are medians over rounds, and a ratio is the median of the ratios within a
round, with the quartiles as its spread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Seconds = Mapping[str, np.ndarray]
"""Of each variant, f64[R]: the seconds it took in each round."""


def interleave(variants: Mapping[str, Callable[[], Any]], rounds: int, warm: int = 1) -> Seconds:
    """Run the variants in turn, ``warm`` rounds uncounted and ``rounds`` counted.

    A variant that answers with a float tells its own seconds (it ran in another process, or
    prepared something first); of others the wall clock is read.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    drawn = np.random.default_rng(0)
    for number in range(warm + rounds):
        for name in drawn.permutation(list(variants)).tolist():
            start = time.perf_counter()
            told = variants[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent = time.perf_counter() - start
            if number >= warm:
                found[name].append(told if isinstance(told, float) else spent)
    return {name: np.array(each) for name, each in found.items()}


def spread(name: str, values: np.ndarray) -> dict[str, float]:
    """The median of values under ``name``, their quartiles under ``name_low`` and ``name_high``."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {name: float(median), f"{name}_low": float(low), f"{name}_high": float(high)}
