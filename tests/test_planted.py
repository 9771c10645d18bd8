"""The benchmark of planted neurons: its scores, its truth, its refusals."""

from __future__ import annotations

import numpy as np
import pytest

from explorer.records import BadInput
from explorer.scores.planted import average, confusion, recovery


def test_recovery_is_one_for_the_truth_under_any_names_and_zero_by_chance() -> None:
    truth = np.repeat([0, 1], 50)
    assert recovery(truth, 1 - truth) == 1.0
    random = np.random.default_rng(0)
    drawn = [recovery(truth, random.integers(0, 2, 100)) for _ in range(300)]
    assert abs(np.mean(drawn)) < 0.005


def test_references_of_unknown_origin_do_not_count_and_outliers_do() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1, -1, -1])
    assert recovery(truth, np.array([0, 0, 0, 1, 1, 1, 0, 1])) == 1.0
    assert recovery(truth, np.array([0, 0, -1, 1, 1, 1, 0, 1])) < 1.0
    assert np.isnan(recovery(np.array([0, 0, -1]), np.array([0, 1, 1])))
    with pytest.raises(BadInput, match="same references"):
        recovery(truth, truth[:3])


def test_an_average_has_its_standard_error_and_its_n() -> None:
    found = average([0.0, 1.0, 0.5, float("nan")])
    assert (found.value, found.n) == (0.5, 3)
    assert found.se == pytest.approx(0.5 / np.sqrt(3))
    assert np.isnan(average([]).value)


def test_confusion_counts_what_was_chosen_for_each_known_number() -> None:
    known, counts = confusion(np.array([1, 1, 2, 3, 3]), np.array([1, 2, 2, 2, 0]), 4)
    assert known.tolist() == [1, 2, 3]
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    with pytest.raises(BadInput, match="between 0 and 4"):
        confusion(np.array([1]), np.array([5]), 4)
