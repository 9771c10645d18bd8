"""Splits of one neuron side by side: which virtual neurons are alike, and how splits agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from explorer.compute.clustering import adjusted_rand
from explorer.records import Split


def match(splits: Sequence[Split]) -> np.ndarray:
    """i64[R,M]: rows of virtual neurons that have most pictures in common, one column per split (-1
    where it has none for that row).

    The first split's virtual neurons make the first rows, in order. The others join the row whose
    first member they overlap most (Jaccard index, pairs taken from the highest down); those that
    overlap none, or come too late, begin rows of their own.
    """
    rows: list[list[int]] = []
    anchors: list[frozenset[int]] = []
    for column, split in enumerate(splits):
        groups = members(split)
        overlaps = sorted(
            (
                (-jaccard(anchor, group), row, virtual)
                for row, anchor in enumerate(anchors)
                for virtual, group in enumerate(groups)
                if anchor & group
            ),
        )
        placed: dict[int, int] = {}
        for _, row, virtual in overlaps:
            if virtual not in placed and row not in placed.values():
                placed[virtual] = row
        for virtual, group in enumerate(groups):
            if virtual not in placed:
                placed[virtual] = len(rows)
                rows.append([-1] * len(splits))
                anchors.append(group)
            rows[placed[virtual]][column] = virtual
    return np.array(rows, np.int64).reshape(-1, len(splits))


def members(split: Split) -> list[frozenset[int]]:
    """The images of each virtual neuron."""
    index = split.references.index
    return [frozenset(index[split.labels == virtual].tolist()) for virtual in range(split.k)]


def jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    """What two sets have in common over all they have; 0 for two empty ones."""
    return len(first & second) / max(len(first | second), 1)


def agreement(splits: Sequence[Split]) -> np.ndarray:
    """f64[M,M]: adjusted Rand index of every two splits over the references both have, outliers
    being a group of their own; NaN where they have none in common."""
    found = np.full((len(splits), len(splits)), np.nan)
    labels = [
        dict(zip(s.references.index.tolist(), s.labels.tolist(), strict=True)) for s in splits
    ]
    for one, first in enumerate(labels):
        for two, second in enumerate(labels):
            both = sorted(first.keys() & second.keys())
            if both:
                pair = [np.array([each[image] for image in both]) for each in (first, second)]
                found[one, two] = adjusted_rand(*pair)
    return found
