"""Distances and silhouettes from inner products alone.

For K rows their Gram matrix f64[K,K] holds all distances, however many features the rows have.
Take it of centred rows, for precision.
"""

from __future__ import annotations

import numpy as np


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


def silhouettes(apart: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """f64[S]: mean silhouettes of S divisions ``labels`` i64[S,K] into groups 0, 1, ..., each from
    its own distances f64[S,K,K] (or all from the same, f64[K,K]); NaN for fewer than two groups."""
    member = (labels[..., None] == np.arange(labels.max(initial=0) + 1)).astype(np.float64)
    sizes = member.sum(axis=1, keepdims=True)
    sums = apart @ member
    own = labels[..., None]
    size = np.take_along_axis(sizes, own, 2)
    inside = np.take_along_axis(sums, own, 2) / np.maximum(size - 1, 1)
    means = np.where(sizes > 0, sums, np.inf) / np.maximum(sizes, 1)
    np.put_along_axis(means, own, np.inf, 2)
    outside = means.min(axis=2, keepdims=True)
    larger = np.maximum(inside, outside)
    with np.errstate(invalid="ignore"):  # infinity over infinity: one group has no outside
        values = (outside - inside) / np.where(larger > 0, larger, 1.0)
    found: np.ndarray = np.where(size > 1, values, 0.0).mean(axis=(1, 2))
    return np.where((sizes > 0).sum(axis=(1, 2)) > 1, found, np.nan)
