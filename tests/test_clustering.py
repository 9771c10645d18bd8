"""Clustering on planted rows, against scikit-learn, and where rows are few, equal or hostile."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from explorer.compute import clustering, gram, lloyd
from explorer.compute.choosing import choose_k, stability
from explorer.compute.clustering import (
    adjusted_rand,
    by_size,
    centred,
    distances,
    kmeans,
    nearest,
    normalise,
    silhouette,
)
from explorer.compute.division import division
from explorer.compute.one_core import _libraries, one_core
from explorer.records import BadInput


def profiles(groups: int, seed: int, features: int = 400, strength: float = 3.0):
    """Rows like relevance: sparse positive profiles, multiplicative noise, L1-normalised."""
    rng = np.random.default_rng(seed)
    common = rng.gamma(0.5, 1, features)
    own = rng.gamma(0.3, 1, (groups, features)) * (rng.random((groups, features)) < 0.1)
    labels = rng.permutation(np.arange(100) % groups)
    rows = (common + strength * own[labels]) * rng.gamma(4, 0.25, (100, features))
    return normalise(rows), labels


def test_rows_are_normalised_by_magnitude() -> None:
    rows = np.array([[1, -3], [0, 0], [0.5, 0.5]], np.float32)
    found = normalise(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.25, -0.75], [0, 0], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("k", [2, 3, 5, 8])
@pytest.mark.parametrize("strength", [0.1, 1.0, 3.0])
def test_kmeans_has_the_labels_of_plain_scikit_learn(k: int, strength: float) -> None:
    from sklearn.cluster import KMeans

    rows, _ = profiles(3, k, strength=strength)
    plain = KMeans(k, n_init=10, random_state=k).fit(rows.astype(np.float64))
    labels, centres, inertia = kmeans(rows, k, k)
    assert labels.tolist() == by_size(plain.labels_).tolist()
    assert inertia == pytest.approx(plain.inertia_, rel=1e-6)
    for group in range(k):
        np.testing.assert_allclose(centres[group], rows[labels == group].mean(axis=0), atol=1e-7)


def test_a_run_that_empties_a_group_is_left_to_scikit_learn(monkeypatch) -> None:
    rows, planted = profiles(3, 1)
    twice = np.array([[0, 0, 1]])
    products = gram.inner_products(centred(rows))
    settled = lloyd.lloyd(products[None], np.ones((1, 100)), twice)
    assert settled.emptied.tolist() == [True]
    assert len(np.unique(settled.labels)) == 2
    monkeypatch.setattr(clustering.lloyd, "like_sklearn", lambda *_: settled)
    assert adjusted_rand(kmeans(rows, 3, 0, restarts=10)[0], planted) == 1


def test_kmeans_finds_planted_groups_and_repeats_itself() -> None:
    rows, planted = profiles(3, 1)
    labels, _, _ = kmeans(rows, 3, 5)
    assert adjusted_rand(labels, planted) == 1
    assert np.array_equal(labels, kmeans(rows, 3, 5)[0])


def test_groups_are_numbered_by_size_then_first_member() -> None:
    assert by_size(np.array([3, 1, 1, 0, -1, 3, 1])).tolist() == [1, 0, 0, 2, -1, 1, 0]
    assert by_size(np.array([2, 0, 0, 2])).tolist() == [0, 1, 1, 0]


def test_fewer_distinct_rows_than_groups() -> None:
    rows = np.repeat(np.eye(3, 6), 4, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels, centres, inertia = kmeans(rows, 5, 0)
    assert len(centres) == 3
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert inertia == 0
    assert kmeans(np.ones((5, 4)), 3, 0)[0].tolist() == [0] * 5
    assert kmeans(np.ones((1, 4)), 8, 0)[1].shape == (1, 4)


@pytest.mark.parametrize("rows", [np.zeros((0, 4)), np.zeros(4), np.full((3, 2), np.nan)])
def test_rows_that_cannot_be_divided(rows: np.ndarray) -> None:
    with pytest.raises(BadInput):
        kmeans(rows, 2, 0)
    with pytest.raises(BadInput, match="k from 1"):
        kmeans(np.eye(3), 0, 0)


def test_distances_are_euclidean() -> None:
    rows, _ = profiles(2, 2, features=300)
    plain = np.linalg.norm(rows[:, None].astype(np.float64) - rows[None], axis=2)
    np.testing.assert_allclose(distances(rows), plain, atol=1e-9)


def test_silhouette_equals_scikit_learn() -> None:
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 7))
    labels = rng.integers(4, size=60)
    labels[0] = 9  # alone in its group
    assert silhouette(rows, labels) == pytest.approx(silhouette_score(rows, labels))
    labels[10:20] = -1
    kept = labels >= 0
    assert silhouette(rows, labels) == pytest.approx(silhouette_score(rows[kept], labels[kept]))
    assert np.isnan(silhouette(rows, np.zeros(60, int)))
    assert np.isnan(silhouette(rows, np.full(60, -1)))
    assert silhouette(np.ones((6, 2)), np.array([0, 0, 0, 1, 1, 1])) == 0


def test_adjusted_rand_equals_scikit_learn() -> None:
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(4, size=50), rng.integers(1, 6, size=50)
        expected = adjusted_rand_score(first, second)
        assert adjusted_rand(first, second) == pytest.approx(expected)
    assert adjusted_rand(np.zeros(5), np.zeros(5)) == 1
    assert adjusted_rand(np.arange(5), np.arange(5)) == 1
    assert adjusted_rand(np.zeros(0), np.zeros(0)) == 1


def started(products: np.ndarray, weight: np.ndarray, k: int, seed: int) -> lloyd.Settled:
    """Runs on one or several Gram matrices from k-means++ seeds."""
    uniform = np.random.default_rng(seed).random((len(weight), k))
    return lloyd.lloyd(products, weight, lloyd.sprinkled(products, weight, uniform))


def test_kmeans_on_inner_products_is_as_good_as_scikit_learn() -> None:
    rows, _ = profiles(4, 3, strength=1.0)
    products = gram.inner_products(centred(rows))
    for k in (2, 4, 6):
        labels = started(products[None], np.ones((4, 100)), k, 0).best(4)[0]
        centres = np.stack([rows[labels == group].mean(axis=0) for group in range(k)])
        inertia = ((rows - centres[labels]) ** 2).sum()
        assert inertia <= kmeans(rows, k, 0)[2] * 1.02


def test_runs_on_several_samples_are_those_on_each() -> None:
    products = np.stack([gram.inner_products(centred(profiles(3, seed)[0])) for seed in range(3)])
    weight = (np.random.default_rng(0).random((6, 100)) < 0.8).astype(float)
    seeds = lloyd.sprinkled(products, weight, np.random.default_rng(1).random((6, 4)))
    together = lloyd.lloyd(products, weight, seeds)
    for at in range(3):
        own = slice(2 * at, 2 * at + 2)
        alone = lloyd.lloyd(products[at : at + 1], weight[own], seeds[own])
        assert together.labels[own].tolist() == alone.labels.tolist()
        np.testing.assert_allclose(together.inertia[own], alone.inertia)


def test_a_settled_run_is_a_fixed_point_of_lloyds_steps() -> None:
    rows, _ = profiles(3, 7)
    weight = (np.random.default_rng(0).random((5, 100)) < 0.8).astype(float)
    settled = started(gram.inner_products(centred(rows))[None], weight, 4, 0)
    for counts, labels, inertia in zip(weight, settled.labels, settled.inertia, strict=True):
        means = [np.average(rows[labels == g], 0, counts[labels == g]) for g in range(4)]
        squared = ((rows[:, None].astype(float) - np.array(means)) ** 2).sum(axis=2)
        assert labels.tolist() == squared.argmin(axis=1).tolist()
        assert inertia == pytest.approx((squared.min(axis=1) * counts).sum())


def test_only_drawn_rows_shape_a_sample() -> None:
    rows = np.array([[0.0], [1], [10], [11], [100]])
    drawn = np.array([[True, True, True, True, False], [True, False, False, True, True]])
    products = gram.inner_products(centred(rows))[None]
    weight = np.repeat(drawn, 4, axis=0).astype(float)
    first, second = started(products, weight, 2, 0).best(4)
    assert by_size(first).tolist() == [1, 1, 0, 0, 0]
    assert by_size(second).tolist() == [0, 0, 0, 0, 1]


def test_stability_tells_groups_from_none() -> None:
    planted, _ = profiles(2, 4)
    none, _ = profiles(1, 4)
    assert stability(planted, 2, 0) > 0.95
    assert stability(planted, 6, 0) < 0.8
    assert stability(none, 2, 0) < 0.75
    assert stability(planted, 2, 0) == stability(planted, 2, 0)
    assert np.isnan(stability(planted, 1, 0))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_auto_finds_the_planted_number(groups: int) -> None:
    found = [choose_k(profiles(groups, seed, 1000)[0], seed).k for seed in range(4)]
    assert found.count(groups) >= 3


def test_auto_does_not_halve_one_long_cloud() -> None:
    rng = np.random.default_rng(0)
    found = []
    for seed in range(4):
        along = rng.standard_normal((100, 1)) * rng.standard_normal((1, 300))
        found.append(choose_k(along + rng.standard_normal((100, 300)), seed).k)
    assert found.count(1) >= 3


def test_auto_says_what_it_saw() -> None:
    choice = choose_k(profiles(2, 5)[0], 0, [2, 3, 4])
    assert (choice.k, choice.ks) == (2, (2, 3, 4))
    arrays = (choice.silhouettes, choice.stabilities, choice.shuffled, choice.unimodal_sd)
    assert {(a.shape, a.dtype) for a in arrays} == {((3,), np.dtype(np.float32))}
    assert choice.silhouettes[0] > choice.shuffled[0]


def test_what_is_found_for_one_k_does_not_depend_on_the_others() -> None:
    rows, _ = profiles(3, 5)
    every = choose_k(rows, 4)
    assert every.ks == (2, 3, 4, 5, 6, 7, 8)
    for at, k in enumerate(every.ks):
        alone = choose_k(rows, 4, [k])
        assert alone.k in (1, k)
        for name in ("silhouettes", "stabilities", "shuffled", "shuffled_sd", "unimodal"):
            assert getattr(alone, name).tolist() == [getattr(every, name)[at]]


def test_a_division_has_the_same_scores_whether_its_k_was_asked_for_or_found() -> None:
    rows = profiles(3, 0, 1000)[0]
    found = division(rows, 0, 1)
    k = len(found.centroids)
    asked = division(rows, k, 1)
    assert k == 3
    assert asked.scores == found.scores
    assert (asked.profile["k"], found.profile["k"]) == ([3], [2, 3, 4, 5, 6, 7, 8])
    assert division(rows, 1, 1).scores == {}


@pytest.mark.parametrize("rows", [np.ones((10, 4)), np.eye(1, 5), np.eye(2), np.zeros((30, 8))])
def test_auto_without_enough_different_rows_is_one(rows: np.ndarray) -> None:
    choice = choose_k(rows, 0)
    assert choice.k == 1
    assert len(choice.silhouettes) == 0


def test_new_rows_go_to_the_nearest_centre() -> None:
    centres = np.array([[0, 0], [4, 0]], np.float32)
    labels, ratio = nearest(np.array([[1, 0], [4, 0], [2, 0]]), centres)
    assert labels[:2].tolist() == [0, 1]
    np.testing.assert_allclose(ratio, [1 / 3, 0, 1])
    assert np.isnan(nearest(centres, centres[:1])[1]).all()
    assert nearest(centres[:1], np.zeros((2, 2)))[1].tolist() == [1]


def test_no_heavy_library_is_imported_for_clustering() -> None:
    code = (
        "import sys, explorer.compute.choosing, explorer.compute.plane, explorer.scores.alignment;"
        "print([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_roots_keep_signs_and_halve_orders_of_magnitude() -> None:
    rows = np.array([[0.25, -0.04, 0.0]])
    np.testing.assert_allclose(clustering.rooted(rows), [[0.5, -0.2, 0.0]], rtol=1e-6)


def test_linear_algebra_stays_on_one_core_inside() -> None:
    def cores() -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    _libraries.cache_clear()  # other tests have loaded more of them since
    before = cores()
    with one_core():
        assert set(cores()) == {1}
    assert cores() == before
    assert set(one_core()(cores)()) == {1}
