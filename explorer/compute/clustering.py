"""Rows into groups: k-means, and how good it is.

Rows are f32[K,D]: K reference images, D features (for PURE the L1-normalised relevance of D
lower channels). Everything is NumPy and deterministic for a seed; scikit-learn is imported only
where it is used, torch never.
"""

from __future__ import annotations

import numpy as np

from explorer.compute import gram, lloyd
from explorer.records import BadInput


def normalise(rows: np.ndarray) -> np.ndarray:
    """f32[K,D]: each row over the sum of its magnitudes (PURE, section 3); zero rows stay zero."""
    rows = np.asarray(rows, np.float64)
    shares = rows / (np.abs(rows).sum(axis=1, keepdims=True) + 1e-10)
    return np.asarray(shares, np.float32)


def rooted(rows: np.ndarray) -> np.ndarray:
    """f32[K,D]: signed square roots. Distances between roots of shares are those of Hellinger."""
    rows = np.asarray(rows, np.float32)
    return np.asarray(np.sign(rows) * np.sqrt(np.abs(rows)), np.float32)


def kmeans(
    rows: np.ndarray, k: int, seed: int, restarts: int = 10
) -> tuple[np.ndarray, np.ndarray, float]:
    """Divide rows into k groups as scikit-learn's k-means does, the best of ``restarts``.

    Returns labels i64[K], numbered from the largest group on (ties: first member first), centres
    f32[k,D], and the inertia. Rows that are equal cannot be told apart: with fewer distinct rows
    than k there are only as many groups as distinct rows. Raises BadInput without rows, for
    k < 1 and for values that are not finite.
    """
    rows = checked(rows)
    if k < 1:
        raise BadInput(f"A neuron cannot be split into {k} groups: choose k from 1 on.")
    k = min(k, distinct(rows))
    labels = divide(rows, gram.inner_products(centred(rows)), k, seed, restarts)
    middles = centres(rows, labels)
    inertia = float(((rows - middles[labels]) ** 2).sum())
    return labels, middles.astype(np.float32), inertia


def centres(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """f64[V,D]: the mean of each group of the rows, ``labels`` i64[K] being 0 to V-1."""
    rows = np.asarray(rows, np.float64)
    return np.stack([rows[labels == group].mean(axis=0) for group in range(labels.max() + 1)])


def divide(
    rows: np.ndarray, inner: np.ndarray, k: int, seed: int, restarts: int = 10
) -> np.ndarray:
    """The labels i64[K] of ``kmeans`` for rows f64[K,D] whose Gram matrix, centred, is known, at
    least k of them distinct. The rare run that empties a group is left to scikit-learn itself."""
    if k == 1:
        return np.zeros(len(rows), np.int64)
    settled = lloyd.like_sklearn(inner, k, seed, restarts, rows.shape[1])
    if not settled.emptied.any():
        return by_size(settled.best(restarts)[0])
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        fitted = KMeans(k, n_init=restarts, random_state=seed).fit(centred(rows))
    return by_size(fitted.labels_)


def centred(rows: np.ndarray) -> np.ndarray:
    """f64[K,D]: the rows less their mean."""
    rows = np.asarray(rows, np.float64)
    moved: np.ndarray = rows - rows.mean(axis=0)
    return moved


def distinct(rows: np.ndarray) -> int:
    """How many different rows there are."""
    return len({row.tobytes() for row in rows + 0.0})  # which makes -0 and 0 the same


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
    return gram.distances(gram.inner_products(centred(rows))) if len(rows) else np.zeros((0, 0))


def silhouette(rows: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (Rousseeuw 1987), -1 to 1, higher is better; a row alone in its group
    counts 0, outliers (label -1) are left out; NaN for fewer than two groups."""
    kept = np.asarray(labels) >= 0
    if not kept.any():
        return float("nan")
    _, found = np.unique(np.asarray(labels)[kept], return_inverse=True)
    return float(gram.silhouettes(distances(np.asarray(rows)[kept]), found[None])[0])


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


def checked(rows: np.ndarray) -> np.ndarray:
    """f64[K,D]; BadInput where there are no rows, or values that are not finite."""
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise BadInput("There are no rows to divide: choose a neuron with reference images.")
    if not np.isfinite(rows).all():
        raise BadInput("The rows hold values that are not finite: choose another attribution.")
    return rows


def _pairs(counts: np.ndarray) -> float:
    return float((counts * (counts - 1)).sum() / 2)
