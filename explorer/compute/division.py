"""Rows into groups, with all that a split tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from explorer.compute import choosing, clustering, plane
from explorer.compute.one_core import one_core


@dataclass(frozen=True)
class Division:
    """K rows divided. ``labels`` i64[U] are of those that are not nothing but zeros, ``centroids``
    f32[V,D] the means of their groups, ``map`` f32[K,2] all rows on a plane; ``scores`` at the k
    used, and the ``profile`` of them over every k that was tried."""

    labels: np.ndarray
    centroids: np.ndarray
    map: np.ndarray
    scores: dict[str, float]
    profile: dict[str, Any]


@one_core()
def division(rows: np.ndarray, k: int, seed: int) -> Division:
    """Divide rows f32[K,D] by k-means into k groups, or as many as they show (k = 0). Scores of
    that k are the same whether it was asked for or found; the others are looked at only to find
    it."""
    used = rows[rows.any(axis=1)]
    given = _chance(used.tobytes(), used.shape, used.dtype.str, seed)
    choice = choosing.choose_k(used, seed, [k] if k else (), given)
    wanted = k or choice.k
    if wanted in choice.ks:
        labels = choice.labels[choice.ks.index(wanted)]
        centroids = clustering.centres(used, labels).astype(np.float32)
    else:
        labels, centroids, _ = clustering.kmeans(used, wanted, seed)
    profile = {
        "k": list(choice.ks),
        "silhouette": [float(value) for value in choice.silhouettes],
        "stability": [float(value) for value in choice.stabilities],
        "null_shuffled": [float(value) for value in choice.shuffled],
        "null_unimodal": [float(value) for value in choice.unimodal],
    }
    scores = {}
    if len(centroids) in choice.ks:
        at = choice.ks.index(len(centroids))
        scores = {
            "silhouette": float(choice.silhouettes[at]),
            "stability": float(choice.stabilities[at]),
            "null_silhouette": float(choice.shuffled[at]),
            "null_silhouette_sd": float(choice.shuffled_sd[at]),
        }
    flat = plane.principal_plane(rows, given.inner if len(used) == len(rows) else None)
    return Division(labels, centroids, flat, scores, profile)


@lru_cache(maxsize=4)
def _chance(data: bytes, shape: tuple[int, ...], dtype: str, seed: int) -> choosing.Chance:
    """``chance``, remembered, because the same rows are asked for one k after another."""
    return choosing.chance(np.frombuffer(data, dtype).reshape(shape), seed)
