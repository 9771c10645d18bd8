"""k-means, distances and silhouettes from inner products alone, many samples at once.

For K rows their Gram matrix f64[K,K] holds all that k-means needs, however many features the
rows have: |x - m|^2 = <x,x> - 2 <x,m> + <m,m>. Take it of centred rows, for precision.
"""

from __future__ import annotations

import numpy as np

RESTARTS = 4
"""k-means runs of each sample, of which the best is kept."""


def inner_products(rows: np.ndarray) -> np.ndarray:
    """The Gram matrix f64[K,K] of rows f64[K,D]."""
    products: np.ndarray = rows @ rows.T
    return products


def distances(gram: np.ndarray) -> np.ndarray:
    """f64[K,K]: Euclidean distances between the rows behind a Gram matrix."""
    norms = np.diagonal(gram)
    squared = norms[:, None] + norms[None] - 2 * gram
    np.fill_diagonal(squared, 0.0)
    # Below the rounding of the products, equal rows would seem a little apart.
    squared[squared < 1e-14 * norms.max(initial=0.0)] = 0.0
    apart: np.ndarray = np.sqrt(squared)
    return apart


def silhouette(apart: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette from distances f64[K,K] and labels i64[K]; NaN for fewer than two groups."""
    groups, labels = np.unique(labels, return_inverse=True)
    if len(groups) < 2:
        return float("nan")
    member = np.eye(len(groups))[labels]
    sizes = member.sum(axis=0)
    sums = apart @ member
    own = np.arange(len(labels)), labels
    inside = sums[own] / np.maximum(sizes[labels] - 1, 1)
    means = sums / sizes
    means[own] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    values = (outside - inside) / np.where(larger > 0, larger, 1.0)
    return float(np.where(sizes[labels] > 1, values, 0.0).mean())


def lloyd(gram: np.ndarray, drawn: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Lloyd's k-means of many samples of the same rows at once.

    ``gram`` f64[K,K], ``drawn`` bool[S,K]: which rows each sample holds. Returns labels i64[S,K],
    of the rows that were not drawn too.
    """
    samples, count = drawn.shape
    weight = np.repeat(drawn, RESTARTS, axis=0).astype(np.float64)
    norms = np.diagonal(gram)
    labels = _seeds(gram, weight, k, rng)
    for _ in range(50):
        member = (labels[..., None] == np.arange(k)) * weight[..., None]  # [R,K,k]
        sizes = np.maximum(member.sum(axis=1), 1e-9)
        flat = member.transpose(1, 0, 2).reshape(count, -1)
        inner = (gram @ flat).reshape(count, -1, k).transpose(1, 0, 2) / sizes[:, None]
        centre = (member * inner).sum(axis=1) / sizes
        squared = norms[None, :, None] - 2 * inner + centre[:, None]
        squared[np.broadcast_to((sizes < 0.5)[:, None], squared.shape)] = np.inf
        new = squared.argmin(axis=2)
        if (new == labels).all():
            break
        labels = new
    inertia = (squared.min(axis=2) * weight).sum(axis=1).reshape(samples, RESTARTS)
    best = inertia.argmin(axis=1)
    kept: np.ndarray = labels.reshape(samples, RESTARTS, count)[np.arange(samples), best]
    return kept


def _seeds(gram: np.ndarray, weight: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii 2007) for every run: labels i64[R,K] by nearest seed."""
    norms = np.diagonal(gram)
    least = np.full(weight.shape, np.inf)
    labels = np.zeros(weight.shape, np.int64)
    chance = weight
    for group in range(k):
        heap = chance.cumsum(axis=1)
        picked = (heap <= rng.random((len(heap), 1)) * heap[:, -1:]).sum(axis=1)
        picked = np.minimum(picked, weight.shape[1] - 1)
        squared = np.maximum(norms[None] + norms[picked, None] - 2 * gram[picked], 0.0)
        closer = squared < least
        labels[closer] = group
        least = np.where(closer, squared, least)
        chance = weight * least
    return labels
