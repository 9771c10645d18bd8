"""How many groups rows show and how stable groups are: k-means on resamples, and on rows that
hold no groups. NumPy alone, deterministic for a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer.compute import gram
from explorer.compute.clustering import adjusted_rand, centred, checked, distinct, divide, kmeans
from explorer.compute.lloyd import lloyd, sprinkled

STABLE = 0.75
"""A k is stable when resamples agree with the whole at least so well (adjusted Rand index)."""

MARGIN = 0.01
"""By how much the silhouette must exceed that of either null, or two standard deviations if that
is more."""

LARGEST_K = 8
DRAWS = 12
RESAMPLES = 20
SHARE = 0.8
RESTARTS = 4
"""k-means runs of each draw and each resample, of which the best is kept."""


@dataclass(frozen=True)
class Choice:
    """What ``auto`` found. ``k`` is its answer, 1 when no division convinces. The arrays, f32[M],
    are for k = 2, 3, ...: ``silhouettes`` and ``stabilities`` of the rows, and the silhouettes of
    two nulls, each a mean and a standard deviation: ``shuffled`` (every column of the rows permuted
    by itself) and ``unimodal`` (one normal cloud with the covariance of the rows)."""

    k: int
    silhouettes: np.ndarray
    stabilities: np.ndarray
    shuffled: np.ndarray
    shuffled_sd: np.ndarray
    unimodal: np.ndarray
    unimodal_sd: np.ndarray


def choose_k(rows: np.ndarray, seed: int, largest: int = LARGEST_K) -> Choice:
    """How many groups the rows show: the k >= 2 of the highest silhouette among those that are
    stable (``STABLE``) and whose silhouette exceeds both nulls; otherwise 1.

    Shuffled columns rule out chance alone; the normal cloud rules out that one elongated cloud,
    which k-means halves reliably, passes for two groups (SigClust, Liu et al. 2008).
    """
    rows = checked(rows)
    ks = range(2, min(largest, distinct(rows) - 1) + 1)
    if not ks:
        return Choice(1, *(np.zeros(0, np.float32) for _ in range(6)))
    rng = np.random.default_rng(seed)
    inner = gram.inner_products(centred(rows))
    divisions = np.stack([divide(rows, inner, k, seed) for k in ks])
    null = _null_silhouettes(rows, ks, rng)
    silhouettes = gram.silhouettes(gram.distances(inner), divisions).astype(np.float32)
    stabilities = np.array([_stability(inner, each, rng) for each in divisions], np.float32)
    mean, spread = null.mean(axis=2), null.std(axis=2)
    beyond = (silhouettes > mean + np.maximum(MARGIN, 2 * spread)).all(axis=0)
    good = beyond & (stabilities >= STABLE)
    best = int(np.argmax(np.where(good, silhouettes, -np.inf))) if good.any() else -1
    nulls = [f.astype(np.float32) for which in zip(mean, spread, strict=True) for f in which]
    return Choice(best + 2 if best >= 0 else 1, silhouettes, stabilities, *nulls)


def stability(
    rows: np.ndarray, k: int, seed: int, resamples: int = RESAMPLES, share: float = SHARE
) -> float:
    """Mean adjusted Rand index of k-means on random shares of the rows, each from other seeds,
    with k-means on all rows: 1 when the same groups are always found; NaN for k = 1."""
    labels, _, _ = kmeans(rows, k, seed)
    inner = gram.inner_products(centred(rows))
    return _stability(inner, labels, np.random.default_rng(seed), resamples, share)


def _stability(
    inner: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    share: float = SHARE,
) -> float:
    k, count = int(labels.max()) + 1, len(labels)
    if k < 2:
        return float("nan")
    size = max(k, round(share * count))
    drawn = rng.random((resamples, count)).argsort(axis=1) < size
    weight = np.repeat(drawn, RESTARTS, axis=0).astype(np.float64)
    grams, starts = inner[None], rng.random((k, len(weight))).T
    found = lloyd(grams, weight, sprinkled(grams, weight, starts)).best(RESTARTS)
    agreed = [adjusted_rand(labels[d], f[d]) for d, f in zip(drawn, found, strict=True)]
    return float(np.mean(agreed))


def _null_silhouettes(rows: np.ndarray, ks: range, rng: np.random.Generator) -> np.ndarray:
    """f64[2,M,DRAWS]: silhouettes of k-means, for every k, on rows that hold no groups: with
    shuffled columns, then from a normal cloud."""
    count = len(rows)
    shuffled = [rng.permuted(rows, axis=0) for _ in range(DRAWS)]
    starts = _starts(ks, rng)
    spread = np.linalg.svd(centred(rows), compute_uv=False) / np.sqrt(count)
    clouds = [rng.standard_normal((count, len(spread))) * spread for _ in range(DRAWS)]
    starts = [np.concatenate(both) for both in zip(starts, _starts(ks, rng), strict=True)]
    grams = np.stack([gram.inner_products(centred(each)) for each in shuffled + clouds])
    apart = np.stack([gram.distances(each) for each in grams])
    weight = np.ones((len(grams) * RESTARTS, count))
    found = np.empty((2, len(ks), DRAWS))
    for at, uniform in enumerate(starts):
        labels = lloyd(grams, weight, sprinkled(grams, weight, uniform)).best(RESTARTS)
        found[:, at] = gram.silhouettes(apart, labels).reshape(2, DRAWS)
    return found


def _starts(ks: range, rng: np.random.Generator) -> list[np.ndarray]:
    """For each k numbers f64[DRAWS*RESTARTS,k] to start from, drawn in the order of the draws."""
    drawn = [[rng.random((k, RESTARTS)).T for k in ks] for _ in range(DRAWS)]
    return [np.concatenate(each) for each in zip(*drawn, strict=True)]
