"""Scores over many neurons against their textbook definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from explorer.records import EvaluationRow
from explorer.scores.evaluation import (
    LEAST_NEURONS,
    SUBSETS,
    Measured,
    correlate,
    differences,
    measure,
    paired,
    summarise,
)


def neuron(seed: int, groups: int = 2, apart: float = 3.0, count: int = 60) -> Measured:
    """One neuron whose ``groups`` are as far apart for the judge as for the method."""
    rows, embeddings, labels = planted(seed, groups, apart, count)
    return measure(rows, embeddings, labels, (0, seed))


def planted(
    seed: int, groups: int = 2, apart: float = 3.0, count: int = 60
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % groups
    centres = random.normal(0, 1, (groups, 8))
    centres *= apart / np.linalg.norm(centres[0] - centres[-1] if groups > 1 else centres[0])
    rows = centres[labels] + random.normal(0, 1, (count, 8))
    embeddings = rows[:, :5] + random.normal(0, 0.5, (count, 5))
    return rows, embeddings, labels


def textbook_distances(rows: np.ndarray) -> np.ndarray:
    return np.array([[np.linalg.norm(one - two) for two in rows] for one in rows])


def test_one_neuron_by_the_definition() -> None:
    rows, embeddings, labels = planted(1, 3)
    labels[::7] = -1
    found = measure(rows, embeddings, labels, (0, 1))
    apart = textbook_distances(embeddings)
    kept = np.flatnonzero(labels >= 0)
    pairs = [(i, j) for i in kept for j in kept if i < j]
    same = [apart[i, j] for i, j in pairs if labels[i] == labels[j]]
    other = [apart[i, j] for i, j in pairs if labels[i] != labels[j]]
    assert found.intra == pytest.approx(np.mean(same))
    assert found.inter == pytest.approx(np.mean(other))
    assert found.overall == pytest.approx(np.mean([apart[i, j] for i, j in pairs]))
    assert found.kept == pytest.approx(len(kept) / len(labels))
    assert found.parts == 3
    assert abs(found.null) < 4 * found.null_sd, "random labels have no gap"


def test_one_group_has_no_gap_and_is_left_out() -> None:
    alone = neuron(0, groups=1)
    row = summarise("m", 0, "j", [alone, neuron(1), None], 0)
    assert np.isnan(alone.inter)
    assert row.n == 1
    assert row.own
    assert row.k == pytest.approx(1.5), "the mean of one and two concepts"
    assert row.correlation_n == 2, "which needs no labels"


def test_means_and_errors_are_the_textbook_ones() -> None:
    measured = [neuron(seed) for seed in range(12)]
    row = summarise("m", 2, "j", measured, 0)
    gaps = np.array([each.inter - each.intra for each in measured])
    assert row.gap == pytest.approx(gaps.mean())
    assert row.gap_se == pytest.approx(gaps.std(ddof=1) / np.sqrt(12))
    assert row.gap == pytest.approx(row.inter - row.intra)
    assert (row.n, row.k, row.own) == (12, 2, False)
    nulls = np.array([each.null_sd for each in measured])
    assert row.gap_null_sd == pytest.approx(np.sqrt((nulls**2).sum()) / 12)
    assert row.gap > row.gap_null + 5 * row.gap_null_sd


@pytest.mark.parametrize("count", [10, LEAST_NEURONS])
def test_correlation_is_pearson_over_pooled_pairs(count: int) -> None:
    seeds = range(count)
    moments = [neuron(seed).moments for seed in seeds]
    mean, error, null, used = correlate(moments, 7)
    order = np.random.default_rng(7).permutation(count)
    subsets = np.array_split(order, SUBSETS if count >= LEAST_NEURONS else count)
    upper = np.triu_indices(50, 1)
    expected = []
    for subset in subsets:
        x, y = [], []
        for seed in subset:
            rows, embeddings, _ = planted(int(seed))
            x.append(textbook_distances(rows[:50])[upper])
            y.append(textbook_distances(embeddings[:50])[upper])
        expected.append(stats.pearsonr(np.concatenate(x), np.concatenate(y)).statistic)
    assert used == len(subsets)
    assert mean == pytest.approx(np.mean(expected))
    assert error == pytest.approx(stats.sem(expected))
    assert null < mean / 2


def test_what_does_not_vary_has_no_correlation() -> None:
    _, embeddings, labels = planted(3)
    alike = measure(np.ones((60, 4)), embeddings, labels, (0, 0))
    mean, error, null, used = correlate([alike.moments], 0)
    assert used == 0
    assert np.isnan([mean, error, null]).all()
    assert correlate([], 0)[3] == 0


def test_pairs_that_the_judge_cannot_tell_apart_are_left_out() -> None:
    rows, embeddings, labels = planted(4)
    embeddings[1] = embeddings[0]
    moments = measure(rows, embeddings, labels, (0, 0)).moments
    assert (moments[:, 0] == 50 * 49 / 2 - 1).all()


def test_paired_differences_follow_student() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(0.3, 1, 25), random.normal(0, 1, 25)
    first[4] = second[9] = np.nan
    both = np.isfinite(first + second)
    mean, error, low, high, count = paired(first, second)
    interval = stats.ttest_rel(first[both], second[both]).confidence_interval(0.95)
    assert count == 23
    assert mean == pytest.approx((first - second)[both].mean())
    assert error == pytest.approx(stats.sem((first - second)[both]))
    assert (low, high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("gaps", [[], [1.0], [np.nan, 1.0]])
def test_fewer_than_two_neurons_have_no_interval(gaps: list[float]) -> None:
    _, error, low, high, count = paired(np.array(gaps), np.zeros(len(gaps)))
    assert count == np.isfinite(gaps).sum()
    assert np.isnan([error, low, high]).all()


def row_of(method: str, k: float, judge: str, own: bool = False) -> EvaluationRow:
    return EvaluationRow(method, k, own, judge, *[0.0] * 12, 0, 0.0, 0)


def test_every_two_methods_are_compared_where_they_can_be() -> None:
    rows = [
        row_of("a", 2, "j"),
        row_of("a", 3, "j"),
        row_of("b", 2, "j"),
        row_of("own", 1.5, "j", own=True),
        row_of("other", 2.0, "j", own=True),
        row_of("a", 2, "another"),
    ]
    gaps = np.arange(6)[:, None] + np.array([[0.0, 0.1]])
    found = {(each.first, each.second, each.k): each for each in differences(rows, gaps, (2, 3))}
    assert set(found) == {
        ("own", "other", 0),
        ("a", "b", 2), ("a", "own", 2), ("a", "other", 2), ("b", "own", 2), ("b", "other", 2),
        ("a", "own", 3), ("a", "other", 3),
    }  # fmt: skip
    assert found["a", "b", 2].mean == pytest.approx(-2)
    assert all(each.judge == "j" for each in found.values())
