"""Rows into groups: k-means, how good and how stable it is, how many groups, and a plane.

Rows are f32[K,D]: K reference images, D features (for PURE the L1-normalised relevance of D
lower channels). Everything is NumPy and deterministic for a seed; scikit-learn and umap-learn
are imported only where they are used, torch never.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer.compute import gram
from explorer.records import BadInput, Unavailable

STABLE = 0.75
"""A k is stable when resamples agree with the whole at least so well (adjusted Rand index)."""

MARGIN = 0.01
"""By how much the silhouette must exceed that of either null, or two standard deviations if that
is more."""

DRAWS = 12
RESAMPLES = 20
SHARE = 0.8


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


def normalise(rows: np.ndarray) -> np.ndarray:
    """f32[K,D]: each row over the sum of its magnitudes (PURE, section 3); zero rows stay zero."""
    rows = np.asarray(rows, np.float64)
    shares = rows / (np.abs(rows).sum(axis=1, keepdims=True) + 1e-10)
    return np.asarray(shares, np.float32)


def kmeans(
    rows: np.ndarray, k: int, seed: int, restarts: int = 10
) -> tuple[np.ndarray, np.ndarray, float]:
    """Divide rows into k groups by scikit-learn's k-means, the best of ``restarts``.

    Returns labels i64[K], numbered from the largest group on (ties: first member first), centres
    f32[k,D], and the inertia. Rows that are equal cannot be told apart: with fewer distinct rows
    than k there are only as many groups as distinct rows. Raises BadInput without rows, for
    k < 1 and for values that are not finite.
    """
    rows = _checked(rows)
    if k < 1:
        raise BadInput(f"A neuron cannot be split into {k} groups: choose k from 1 on.")
    k = min(k, len(np.unique(rows, axis=0)))
    labels = np.zeros(len(rows), np.int64)
    if k > 1:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            fitted = KMeans(k, n_init=restarts, random_state=seed).fit(rotate(rows))
        labels = by_size(fitted.labels_)
    count = int(labels.max()) + 1
    centres = np.stack([rows[labels == group].mean(axis=0) for group in range(count)])
    inertia = float(((rows - centres[labels]) ** 2).sum())
    return labels, centres.astype(np.float32), inertia


def rotate(rows: np.ndarray) -> np.ndarray:
    """f64[K,min(K,D)]: the same rows, centred, in an orthonormal basis of their own span, so that
    all distances stay and D no longer matters."""
    rows = np.asarray(rows, np.float64)
    centred: np.ndarray = rows - rows.mean(axis=0)
    if rows.shape[1] <= rows.shape[0]:
        return centred
    return np.ascontiguousarray(np.linalg.qr(centred.T).R.T)


def by_size(labels: np.ndarray) -> np.ndarray:
    """Renumber groups from the largest on, ties by first member; -1 (outliers) stays."""
    labels = np.asarray(labels, np.int64)
    groups, first, counts = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    new = np.full(int(labels.max(initial=-1)) + 2, -1, np.int64)
    new[groups[np.lexsort((first, -counts))]] = np.arange(len(groups))
    numbered: np.ndarray = new[labels]
    return numbered


def distances(rows: np.ndarray) -> np.ndarray:
    """f64[K,K]: Euclidean distances between rows; exactly zero on the diagonal."""
    rows = np.asarray(rows, np.float64)
    if not len(rows):
        return np.zeros((0, 0))
    return gram.distances(gram.inner_products(rows - rows.mean(axis=0)))


def silhouette(rows: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (Rousseeuw 1987), -1 to 1, higher is better; a row alone in its group
    counts 0, outliers (label -1) are left out; NaN for fewer than two groups."""
    kept = np.asarray(labels) >= 0
    if not kept.any():
        return float("nan")
    return gram.silhouette(distances(np.asarray(rows)[kept]), np.asarray(labels)[kept])


def adjusted_rand(first: np.ndarray, second: np.ndarray) -> float:
    """Agreement of two divisions of the same rows (Hubert and Arabie 1985): 1 if they are equal,
    0 on average by chance."""
    _, first = np.unique(first, return_inverse=True)
    _, second = np.unique(second, return_inverse=True)
    table = np.zeros((first.max(initial=0) + 1, second.max(initial=0) + 1))
    np.add.at(table, (first, second), 1)
    both, rows, columns = (_pairs(t) for t in (table, table.sum(axis=1), table.sum(axis=0)))
    expected = rows * columns / max(float(_pairs(np.array([len(first)]))), 1.0)
    top = (rows + columns) / 2
    return 1.0 if top == expected else float((both - expected) / (top - expected))


def stability(
    rows: np.ndarray, k: int, seed: int, resamples: int = RESAMPLES, share: float = SHARE
) -> float:
    """Mean adjusted Rand index of k-means on random shares of the rows, each from other seeds,
    with k-means on all rows: 1 when the same groups are always found; NaN for k = 1."""
    labels, _, _ = kmeans(rows, k, seed)
    rng = np.random.default_rng(seed)
    turned = rotate(rows)
    return _stability(gram.inner_products(turned), labels, rng, resamples, share)


def choose_k(rows: np.ndarray, seed: int, largest: int = 8) -> Choice:
    """How many groups the rows show: the k >= 2 of the highest silhouette among those that are
    stable (``STABLE``) and whose silhouette exceeds both nulls; otherwise 1.

    Shuffled columns rule out chance alone; the normal cloud rules out that one elongated cloud,
    which k-means halves reliably, passes for two groups (SigClust, Liu et al. 2008).
    """
    rows = _checked(rows)
    ks = range(2, min(largest, len(np.unique(rows, axis=0)) - 1) + 1)
    rng = np.random.default_rng(seed)
    turned = rotate(rows)
    inner = gram.inner_products(turned)
    apart = gram.distances(inner)
    divisions = [kmeans(turned, k, seed)[0] for k in ks]
    shuffled = _null_silhouettes([rng.permuted(rows, axis=0) for _ in range(DRAWS)], ks, rng)
    spread = np.linalg.svd(turned, compute_uv=False) / np.sqrt(len(rows))
    clouds = [rng.standard_normal((len(rows), len(spread))) * spread for _ in range(DRAWS)]
    unimodal = _null_silhouettes(clouds, ks, rng)
    silhouettes = np.array([gram.silhouette(apart, labels) for labels in divisions], np.float32)
    stabilities = np.array([_stability(inner, labels, rng) for labels in divisions], np.float32)
    good = stabilities >= STABLE
    for null in (shuffled, unimodal):
        good &= silhouettes > null.mean(axis=1) + np.maximum(MARGIN, 2 * null.std(axis=1))
    best = int(np.argmax(np.where(good, silhouettes, -np.inf))) if good.any() else -1
    nulls = [f(axis=1).astype(np.float32) for n in (shuffled, unimodal) for f in (n.mean, n.std)]
    return Choice(best + 2 if best >= 0 else 1, silhouettes, stabilities, *nulls)


def nearest(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assign new rows f32[B,D] to centres f32[V,D]: labels i64[B] and ratio f32[B], the distance
    to the nearest centre over that to the second nearest (0: certain, 1: undecided; NaN when
    there is only one centre)."""
    rows, centres = np.asarray(rows, np.float64), np.asarray(centres, np.float64)
    apart = np.stack([np.linalg.norm(rows - centre, axis=1) for centre in centres], axis=1)
    labels = apart.argmin(axis=1)
    if len(centres) < 2:
        return labels, np.full(len(rows), np.nan, np.float32)
    ordered = np.sort(apart, axis=1)
    second = np.where(ordered[:, 1] > 0, ordered[:, 1], 1.0)
    ratio = np.where(ordered[:, 1] > 0, ordered[:, 0] / second, 1.0)
    return labels, ratio.astype(np.float32)


def principal_plane(rows: np.ndarray) -> np.ndarray:
    """f32[K,2]: the first two principal components of the rows, in their own units. The sign is
    fixed by the entry of largest magnitude being positive; missing components are zero."""
    turned = rotate(_checked(rows))
    vectors, values, _ = np.linalg.svd(turned, full_matrices=False)
    plane = np.zeros((len(turned), 2))
    found = min(2, len(values))
    plane[:, :found] = vectors[:, :found] * values[:found]
    strongest = plane[np.abs(plane).argmax(axis=0), np.arange(2)]
    return (plane * np.where(strongest < 0, -1, 1)).astype(np.float32)


def plane_umap(rows: np.ndarray, seed: int) -> np.ndarray:
    """f32[K,2]: UMAP of the rows (McInnes et al. 2018) as in PURE's figures (min_dist 0.3,
    spread 1), from 15 neighbours or fewer where there are few rows, starting at the principal
    plane. Raises Unavailable for fewer than four different rows or without umap-learn: show
    ``principal_plane`` then."""
    rows = _checked(rows)
    if len(np.unique(rows, axis=0)) < 4:
        raise Unavailable(
            "UMAP needs at least four different rows: look at the principal components instead."
        )
    try:
        from umap import UMAP
    except ImportError as error:
        raise Unavailable("UMAP needs the package umap-learn: install requirements.txt.") from error
    start = principal_plane(rows)
    start = 10 * start / max(float(np.abs(start).max()), 1e-12)
    reducer = UMAP(
        n_neighbors=int(np.clip(len(rows) // 4, min(6, len(rows) - 1), 15)),
        min_dist=0.3,
        spread=1.0,
        init=start,
        random_state=seed,
        n_jobs=1,
    )
    return np.asarray(reducer.fit_transform(rotate(rows).astype(np.float32)), np.float32)


def _checked(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise BadInput("There are no rows to divide: choose a neuron with reference images.")
    if not np.isfinite(rows).all():
        raise BadInput("The rows hold values that are not finite: choose another attribution.")
    return rows


def _pairs(counts: np.ndarray) -> float:
    return float((counts * (counts - 1)).sum() / 2)


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
    order = rng.random((resamples, count)).argsort(axis=1)
    drawn = order < size
    found = gram.lloyd(inner, drawn, k, rng)
    return float(
        np.mean([adjusted_rand(labels[d], f[d]) for d, f in zip(drawn, found, strict=True)])
    )


def _null_silhouettes(draws: list[np.ndarray], ks: range, rng: np.random.Generator) -> np.ndarray:
    """f64[M,DRAWS]: silhouettes of k-means, for every k, on rows that hold no groups."""
    found = np.empty((len(ks), len(draws)))
    for column, rows in enumerate(draws):
        inner = gram.inner_products(rows - rows.mean(axis=0))
        apart = gram.distances(inner)
        everything = np.ones((1, len(rows)), bool)
        for row, k in enumerate(ks):
            found[row, column] = gram.silhouette(apart, gram.lloyd(inner, everything, k, rng)[0])
    return found
