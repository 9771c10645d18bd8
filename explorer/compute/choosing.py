"""How many groups rows show and how stable groups are: k-means on resamples, and on rows that
hold no groups. NumPy alone, deterministic for a seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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
    """What was found for some ``ks``, k = 2, 3, ... in their order. ``k`` is the best of them, 1
    when no division convinces. ``labels`` i64[M,K] are those of ``kmeans`` for each. The other
    arrays are f32[M]: ``silhouettes`` and ``stabilities`` of the rows, and the silhouettes of two
    nulls, each a mean and a standard deviation: ``shuffled`` (every column of the rows permuted by
    itself) and ``unimodal`` (one normal cloud with the covariance of the rows)."""

    k: int
    ks: tuple[int, ...]
    labels: np.ndarray
    silhouettes: np.ndarray
    stabilities: np.ndarray
    shuffled: np.ndarray
    shuffled_sd: np.ndarray
    unimodal: np.ndarray
    unimodal_sd: np.ndarray


@dataclass(frozen=True)
class Dice:
    """All that is drawn to look at K rows of D features. ``shuffles`` i64[DRAWS,D,K] are places in
    the rows laid out column after column, each column permuted by itself; ``clouds``
    f64[DRAWS,K,min(K,D)] is normal. For each k, ``starts`` f64[2*DRAWS*RESTARTS,k] is for k-means
    on nulls, ``drawn`` bool[RESAMPLES,K] and ``restarts`` f64[RESAMPLES*RESTARTS,k] for resamples.
    It is drawn for every k in one order, so that what is found for one k does not depend on which
    others are looked at."""

    shuffles: np.ndarray
    clouds: np.ndarray
    starts: dict[int, np.ndarray]
    drawn: dict[int, np.ndarray]
    restarts: dict[int, np.ndarray]


@lru_cache(maxsize=2)  # all neurons of a layer, as a rule
def dice(seed: int, count: int, features: int, ks: range) -> Dice:
    """Thrown for rows of this form, whatever is in them."""
    rng = np.random.default_rng(seed)
    columns = np.tile(np.arange(count), (features, 1))
    places = np.arange(features)[:, None] * count
    shuffles = [(places + rng.permuted(columns, axis=1)).astype(np.intp) for _ in range(DRAWS)]
    starts = _starts(ks, rng)
    clouds = [rng.standard_normal((count, min(count, features))) for _ in range(DRAWS)]
    both = zip(ks, starts, _starts(ks, rng), strict=True)
    starting = {k: np.concatenate([first, second]) for k, first, second in both}
    drawn, restarts = {}, {}
    for k in ks:
        drawn[k], restarts[k] = _resamples(k, count, rng)
    return Dice(np.stack(shuffles), np.stack(clouds), starting, drawn, restarts)


@dataclass(frozen=True)
class Chance:
    """``dice`` thrown for some rows, and Gram matrices: ``inner`` f64[K,K] of these rows, centred,
    and f64[2*DRAWS,K,K] of ``nulls`` made with the dice: shuffled columns, then normal clouds."""

    dice: Dice
    inner: np.ndarray
    nulls: np.ndarray


def chance(rows: np.ndarray, seed: int) -> Chance:
    """What ``choose_k`` needs for rows f32[K,D] with this seed, for all k that are possible."""
    rows = checked(rows)
    thrown = dice(seed, *rows.shape, _possible(rows))
    middle = centred(rows)
    inner = gram.inner_products(middle)
    variances = np.linalg.eigvalsh(inner)[::-1] / len(rows)
    spread = np.sqrt(variances[: min(rows.shape)].clip(0))
    columns = middle.T.ravel()  # which shuffled keep their means
    shuffled = (columns.take(places).T for places in thrown.shuffles)
    clouds = (centred(cloud * spread) for cloud in thrown.clouds)
    nulls = itertools.chain(shuffled, clouds)
    return Chance(thrown, inner, np.stack([gram.inner_products(each) for each in nulls]))


def choose_k(
    rows: np.ndarray, seed: int, ks: Sequence[int] = (), given: Chance | None = None
) -> Choice:
    """How many groups the rows f32[K,D] show: of ``ks`` (none: all that are possible up to
    LARGEST_K) the one with the highest silhouette among those that are stable (``STABLE``) and
    whose silhouette exceeds both nulls; otherwise 1. ``given`` is ``chance`` of these rows and this
    seed, if that is at hand.

    Shuffled columns rule out chance alone; the normal cloud rules out that one elongated cloud,
    which k-means halves reliably, passes for two groups (SigClust, Liu et al. 2008).
    """
    rows = checked(rows)
    given = given or chance(rows, seed)
    tried, inner = tuple(k for k in given.dice.starts if not ks or k in ks), given.inner
    if not tried:
        nothing = np.zeros(0, np.float32)
        return Choice(1, (), np.zeros((0, len(rows)), np.int64), *(nothing for _ in range(6)))
    divisions = np.stack([divide(rows, inner, k, seed) for k in tried])
    silhouettes = gram.silhouettes(gram.distances(inner), divisions).astype(np.float32)
    stabilities = np.array(
        [
            _stability(inner, labels, given.dice.drawn[k], given.dice.restarts[k])
            for k, labels in zip(tried, divisions, strict=True)
        ],
        np.float32,
    )
    null = _null_silhouettes(given, tried)
    mean, spread = null.mean(axis=2), null.std(axis=2)
    beyond = (silhouettes > mean + np.maximum(MARGIN, 2 * spread)).all(axis=0)
    good = beyond & (stabilities >= STABLE)
    best = tried[np.argmax(np.where(good, silhouettes, -np.inf))] if good.any() else 1
    nulls = [f.astype(np.float32) for which in zip(mean, spread, strict=True) for f in which]
    return Choice(best, tried, divisions, silhouettes, stabilities, *nulls)


def stability(rows: np.ndarray, k: int, seed: int) -> float:
    """Mean adjusted Rand index of k-means on random shares of the rows, each from other seeds,
    with k-means on all rows: 1 when the same groups are always found; NaN for k = 1."""
    labels, _, _ = kmeans(rows, k, seed)
    inner = gram.inner_products(centred(rows))
    found = int(labels.max()) + 1
    return _stability(inner, labels, *_resamples(found, len(rows), np.random.default_rng(seed)))


def _possible(rows: np.ndarray) -> range:
    """The k from 2 on, up to LARGEST_K, that leave something to tell apart."""
    return range(2, min(LARGEST_K, distinct(rows) - 1) + 1)


def _resamples(k: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are in each resample, and numbers from which its k-means starts."""
    size = max(k, round(SHARE * count))
    drawn = rng.random((RESAMPLES, count)).argsort(axis=1) < size
    return drawn, rng.random((k, RESAMPLES * RESTARTS)).T


def _stability(
    inner: np.ndarray, labels: np.ndarray, drawn: np.ndarray, restarts: np.ndarray
) -> float:
    if labels.max() < 1:
        return float("nan")
    weight = np.repeat(drawn, RESTARTS, axis=0).astype(np.float64)
    grams = inner[None]
    found = lloyd(grams, weight, sprinkled(grams, weight, restarts)).best(RESTARTS)
    agreed = [adjusted_rand(labels[d], f[d]) for d, f in zip(drawn, found, strict=True)]
    return float(np.mean(agreed))


def _null_silhouettes(given: Chance, ks: Sequence[int]) -> np.ndarray:
    """f64[2,M,DRAWS]: silhouettes of k-means, for every k, on rows that hold no groups: with
    shuffled columns, then from a normal cloud."""
    apart = np.stack([gram.distances(each) for each in given.nulls])
    weight = np.ones((len(given.nulls) * RESTARTS, given.nulls.shape[1]))
    found = np.empty((2, len(ks), DRAWS))
    for at, k in enumerate(ks):
        seeds = sprinkled(given.nulls, weight, given.dice.starts[k])
        labels = lloyd(given.nulls, weight, seeds).best(RESTARTS)
        found[:, at] = gram.silhouettes(apart, labels).reshape(2, DRAWS)
    return found


def _starts(ks: range, rng: np.random.Generator) -> list[np.ndarray]:
    """For each k numbers f64[DRAWS*RESTARTS,k] to start from, drawn in the order of the draws."""
    drawn = [[rng.random((k, RESTARTS)).T for k in ks] for _ in range(DRAWS)]
    return [np.concatenate(each) for each in zip(*drawn, strict=True)]
