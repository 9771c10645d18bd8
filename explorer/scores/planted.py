"""Splits judged by a known truth: was the right division found, and the right number of parts?

Truth may come from planted channels or from a renderer. Definitions, directions and nulls are in
docs/scores.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explorer.compute.clustering import adjusted_rand
from explorer.records import BadInput
from explorer.scores.alignment import standard_error


@dataclass(frozen=True)
class Average:
    """A mean over ``n`` neurons and its standard error (NaN for fewer than two)."""

    value: float
    se: float
    n: int


def recovery(truth: np.ndarray, labels: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985) of the labels i64[K] of a split with the truth
    i64[K]: 1 for the same division, 0 on average by chance.

    References of no known origin (truth -1) are left out; those that the split leaves out
    (label -1) are a group of their own. NaN where the truth has fewer than two groups.
    """
    truth, labels = np.asarray(truth), np.asarray(labels)
    if truth.shape != labels.shape:
        raise BadInput("Truth and labels must describe the same references, in order.")
    known = truth >= 0
    if len(np.unique(truth[known])) < 2:
        return float("nan")
    return adjusted_rand(truth[known], labels[known])


def average(values: Sequence[float] | np.ndarray) -> Average:
    """The mean of a score over neurons, those without one (NaN) left out."""
    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    mean = float(found.mean()) if found.size else float("nan")
    return Average(mean, standard_error(found), int(found.size))


def confusion(known: np.ndarray, chosen: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """How often k was chosen automatically, by how many concepts the neuron is known to have.

    ``known`` and ``chosen`` i64[M], one entry per neuron. Returns the known numbers that occur
    i64[R], ascending, and counts i64[R,largest]: column c counts the neurons for which k = c + 1
    was chosen. A ``chosen`` of 0 (nothing to divide) is counted nowhere. Raises BadInput for
    numbers of concepts below 1 and choices outside 0 to ``largest``.
    """
    known, chosen = np.asarray(known, np.int64), np.asarray(chosen, np.int64)
    if known.shape != chosen.shape or (known < 1).any():
        raise BadInput("Every neuron needs a known number of concepts, from 1 on, and a choice.")
    if ((chosen < 0) | (chosen > largest)).any():
        raise BadInput(f"The chosen numbers must lie between 0 and {largest}.")
    rows, at = np.unique(known, return_inverse=True)
    counts = np.zeros((len(rows), largest + 1), np.int64)
    np.add.at(counts, (at, chosen), 1)
    return rows, counts[:, 1:]
