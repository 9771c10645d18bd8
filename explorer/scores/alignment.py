"""Does a split agree with an embedder? PURE's distances (2404.06453, evaluation), with nulls.

Distances are Euclidean between the embeddings of the reference crops. What each score means, its
direction and its null are in docs/scores.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from explorer.compute.clustering import distances
from explorer.records import Alignment, BadInput, EmbedderInfo, Score

PERMUTATIONS = 200
"""How many random labellings (or shuffles of the rows) make a null."""


def alignment(
    info: EmbedderInfo, embeddings: np.ndarray, rows: np.ndarray, labels: np.ndarray, seed: int
) -> Alignment:
    """Judge a split by an embedder.

    ``embeddings`` f32[K,E] of the K references by the embedder ``info``, ``rows`` f32[K,D] that
    the method divided, ``labels`` i64[K] with -1 for outliers, which are left out of every score.
    Nulls are means over random labels of the same sizes; that of the correlation shuffles the
    rows. One group has no inter and no gap (NaN). Raises BadInput when the lengths differ.
    """
    labels = np.asarray(labels)
    if not len(embeddings) == len(rows) == len(labels):
        raise BadInput("Embeddings, rows and labels must describe the same pictures, in order.")
    kept = labels >= 0
    rng = np.random.default_rng(seed)
    apart = distances(np.asarray(embeddings)[kept])
    intra, inter, gap = separation(apart, labels[kept], rng)
    return Alignment(
        embedder=info.used,
        title=info.title,
        notice=info.notice,
        intra=intra,
        inter=inter,
        gap=gap,
        overall=_mean(apart[np.triu_indices(len(apart), 1)]),
        correlation=_correlation(apart, distances(np.asarray(rows)[kept]), rng),
    )


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Standard deviation over the root of n (NaNs left out); NaN for fewer than two values."""
    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    return float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else float("nan")


def separation(
    apart: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[Score, Score, Score]:
    """Intra, inter and gap of labels i64[K] (no outliers) in distances f64[K,K], each with the null
    of random labels of the same sizes."""
    count = len(labels)
    drawn = np.stack([labels, *(rng.permutation(labels) for _ in range(PERMUTATIONS))])
    intra, inter = _within_and_between(apart, drawn)
    return (
        _score(intra[0], intra[1:], count),
        _score(inter[0], inter[1:], count),
        _score(inter[0] - intra[0], inter[1:] - intra[1:], count),
    )


def _within_and_between(apart: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f64[N] each: mean distance over pairs of one label and over pairs of two, for N labellings
    i64[N,K] of the same sizes. An empty set of pairs copies the other, but one group has no
    between."""
    runs, count = labels.shape
    groups, sizes = np.unique(labels[0], return_counts=True)
    if count < 2:
        return np.full(runs, np.nan), np.full(runs, np.nan)
    member = (labels.T[:, :, None] == groups).astype(np.float64)  # [K,N,V]
    sums = apart @ member.reshape(count, -1)
    same = (member * sums.reshape(member.shape)).sum(axis=(0, 2))
    pairs = float((sizes * (sizes - 1)).sum())
    others = float(count * (count - 1)) - pairs
    if len(groups) == 1:
        return same / pairs, np.full(runs, np.nan)
    between = (apart.sum() - same) / others
    return (same / pairs if pairs else between), between


def _correlation(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> Score:
    count = len(first)
    upper = np.triu_indices(count, 1)
    one, two = _standard(first[upper]), _standard(second[upper])
    if one is None or two is None:
        return Score(float("nan"), float("nan"), float("nan"), count)
    square = np.zeros_like(second)
    square[upper] = two
    square += square.T
    shuffled = np.empty(PERMUTATIONS)
    for run in range(PERMUTATIONS):
        order = rng.permutation(count)
        shuffled[run] = one @ square[np.ix_(order, order)][upper]
    return _score(float(one @ two), shuffled, count)


def _standard(values: np.ndarray) -> np.ndarray | None:
    """Centred and of unit length, or None where nothing varies."""
    centred = values - _mean(values)
    length = float(np.linalg.norm(centred))
    scale = float(np.abs(values).max(initial=0.0)) * max(len(values), 1)
    return centred / length if length > 1e-12 * scale else None


def _score(value: float, null: np.ndarray, count: int) -> Score:
    return Score(float(value), float(null.mean()), float(null.std()), count)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
