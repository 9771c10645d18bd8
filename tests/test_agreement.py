"""Splits side by side: rows of virtual neurons that are alike, and agreement."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from explorer.methods.agreement import agreement, jaccard, match, members
from explorer.records import Neuron, ReferenceQuery, References, Split

NEURON = Neuron("test", "upper", 0)


def split(labels: list[int], images: list[int] | None = None) -> Split:
    """A split of these images (0, 1, ... if not given) into these groups."""
    count = len(labels)
    index = np.array(range(count) if images is None else images)
    references = References(
        NEURON, ReferenceQuery(), index, np.ones(count, np.float32), np.zeros(count, np.int64)
    )
    strength = (np.array(labels)[None] == np.arange(max(labels) + 1)[:, None]).astype(np.float32)
    centroid = np.zeros((len(strength), 2), np.float32)
    plane = np.zeros((count, 2), np.float32)
    return Split(NEURON, "m", 1, {}, 0, references, strength, centroid, "s", plane, {})


def test_rows_hold_what_overlaps_most() -> None:
    first = split([0, 0, 0, 0, 1, 1, 1, 2, 2])
    swapped = split([1, 1, 1, 1, 0, 0, 0, 0, 2])
    assert match([first, swapped]).tolist() == [[0, 1], [1, 0], [2, 2]]
    assert match([first]).tolist() == [[0], [1], [2]]


def test_what_overlaps_nothing_begins_a_row() -> None:
    one = split([0, 0, 0, 0])
    two = split([0, 0, 1, 1])
    apart = split([0, 0], images=[8, 9])
    rows = match([one, two, apart, two])
    assert rows.tolist() == [[0, 0, -1, 0], [-1, 1, -1, 1], [-1, -1, 0, -1]]
    assert sorted(members(two)[0]) == [0, 1]


def test_outliers_belong_to_no_row() -> None:
    assert [sorted(each) for each in members(split([0, -1, 0, 1]))] == [[0, 2], [3]]
    assert match([split([0, 0, 1, 1]), split([-1, -1, 0, 0])]).tolist() == [[0, -1], [1, 0]]


def test_agreement_is_the_adjusted_rand_index_of_common_pictures() -> None:
    one, two = split([0, 0, 1, 1, 2]), split([1, 0, 0, 0], images=[4, 3, 2, 1])
    found = agreement([one, two])
    assert np.diag(found) == pytest.approx(1)
    assert (
        found[0, 1] == found[1, 0] == pytest.approx(adjusted_rand_score([0, 1, 1, 2], [0, 0, 0, 1]))
    )
    assert np.isnan(agreement([one, split([0], images=[77])])[0, 1])


def test_overlap_of_nothing_is_none() -> None:
    assert jaccard(frozenset(), frozenset()) == 0
    assert jaccard(frozenset([1, 2]), frozenset([2, 3])) == pytest.approx(1 / 3)
