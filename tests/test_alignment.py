"""Scores against a textbook twin, their nulls, and the cases where they are not defined."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from explorer.records import BadInput, EmbedderInfo
from explorer.scores.alignment import alignment, standard_error

INFO = EmbedderInfo("conse", "conse", "ConSE (approximate)", "a stand-in", True)


def planted(count: int = 40, groups: int = 2, apart: float = 3.0):
    """Embeddings and rows that follow the same labels, apart from noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(groups, size=count)
    centres = apart * rng.standard_normal((groups, 16))
    embeddings = centres[labels] + rng.standard_normal((count, 16))
    rows = (apart * rng.standard_normal((groups, 30)))[labels] + rng.standard_normal((count, 30))
    return embeddings.astype(np.float32), rows.astype(np.float32), labels


def textbook(embeddings, rows, labels):
    """The definitions, pair by pair."""
    kept = [i for i, label in enumerate(labels) if label >= 0]
    pairs = list(combinations(kept, 2))
    far = {
        (i, j): np.sqrt(np.sum((np.float64(embeddings[i]) - embeddings[j]) ** 2)) for i, j in pairs
    }
    same = [far[p] for p in pairs if labels[p[0]] == labels[p[1]]]
    other = [far[p] for p in pairs if labels[p[0]] != labels[p[1]]]
    method = [np.sqrt(np.sum((np.float64(rows[i]) - rows[j]) ** 2)) for i, j in pairs]
    correlation = np.corrcoef([far[p] for p in pairs], method)[0, 1]
    intra = np.mean(same or other)
    inter = np.mean(other or same)
    return intra, inter, inter - intra, np.mean([far[p] for p in pairs]), correlation


@pytest.mark.parametrize("groups", [2, 3, 5])
@pytest.mark.parametrize("outliers", [0, 4])
def test_equals_the_textbook(groups: int, outliers: int) -> None:
    embeddings, rows, labels = planted(groups=groups)
    labels[:outliers] = -1
    found = alignment(INFO, embeddings, rows, labels, 0)
    values = [found.intra.value, found.inter.value, found.gap.value]
    values += [found.overall, found.correlation.value]
    np.testing.assert_allclose(values, textbook(embeddings, rows, labels), rtol=1e-9)
    assert {found.intra.n, found.gap.n, found.correlation.n} == {40 - outliers}
    assert (found.embedder, found.title, found.notice) == ("conse", INFO.title, "a stand-in")


def test_a_true_split_stands_out_from_its_null() -> None:
    found = alignment(INFO, *planted(), 0)
    assert found.gap.value > found.gap.null + 10 * found.gap.null_sd
    assert found.intra.value < found.intra.null < found.overall + 3 * found.intra.null_sd
    assert found.correlation.value > found.correlation.null + 10 * found.correlation.null_sd


def test_random_labels_look_like_their_null() -> None:
    embeddings, rows, labels = planted()
    rng = np.random.default_rng(1)
    far = [
        (score.value - score.null) / score.null_sd
        for run in range(30)
        for score in [alignment(INFO, embeddings, rows, rng.permutation(labels), run).gap]
    ]
    assert abs(np.mean(far)) < 0.6
    assert 0.5 < np.std(far) < 1.6


def test_the_null_is_that_of_drawn_labels() -> None:
    embeddings, rows, labels = planted(groups=3)
    rng = np.random.default_rng(2)
    drawn = [textbook(embeddings, rows, rng.permutation(labels))[2] for _ in range(100)]
    gap = alignment(INFO, embeddings, rows, labels, 0).gap
    assert gap.null == pytest.approx(np.mean(drawn), abs=4 * gap.null_sd / np.sqrt(100))
    assert gap.null_sd == pytest.approx(np.std(drawn), rel=0.3)


def test_one_group_has_no_between() -> None:
    embeddings, rows, labels = planted()
    found = alignment(INFO, embeddings, rows, np.zeros_like(labels), 0)
    assert found.intra.value == pytest.approx(found.overall)
    assert np.isnan([found.inter.value, found.inter.null, found.gap.value, found.gap.null]).all()
    assert np.isfinite(found.correlation.value)


def test_pictures_all_apart_copy_the_between() -> None:
    embeddings, rows, _ = planted()
    found = alignment(INFO, embeddings, rows, np.arange(40), 0)
    assert found.intra.value == found.inter.value == pytest.approx(found.overall)
    assert found.gap.value == 0


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pictures_are_not_defined(count: int) -> None:
    embeddings, rows, labels = planted()
    labels[count:] = -1
    found = alignment(INFO, embeddings, rows, labels, 0)
    assert np.isnan([found.intra.value, found.gap.value, found.overall]).all()
    assert np.isnan(found.correlation.value)
    assert found.correlation.n == count


def test_equal_rows_have_no_correlation() -> None:
    embeddings, rows, labels = planted()
    found = alignment(INFO, embeddings, np.ones_like(rows), labels, 0)
    assert np.isnan(found.correlation.value)
    assert np.isfinite(found.gap.value)


def test_the_same_seed_gives_the_same_scores() -> None:
    data = planted()
    assert alignment(INFO, *data, 3) == alignment(INFO, *data, 3)


def test_lengths_must_agree() -> None:
    embeddings, rows, labels = planted()
    with pytest.raises(BadInput, match="same pictures"):
        alignment(INFO, embeddings[:-1], rows, labels, 0)


def test_standard_error() -> None:
    values = [1.0, 2.0, 4.0, float("nan")]
    assert standard_error(values) == pytest.approx(np.std(values[:3], ddof=1) / np.sqrt(3))
    assert np.isnan(standard_error([1.0]))
