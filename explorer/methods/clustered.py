"""From rows to a Split by k-means: shared by every method that clusters its references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from explorer.compute import clustering
from explorer.records import BadInput, References, Split

LARGEST_K = 8


def cluster(
    method: tuple[str, int],
    params: Any,
    references: References,
    rows: np.ndarray,
    space: str,
    provenance: Mapping[str, Any],
) -> Split:
    """Divide the references by k-means on ``rows`` f32[K,D] (``params.k``, 0 = automatic).

    ``method`` is its name and version; ``params`` needs ``k`` and ``seed``. Scores hold the
    silhouette, its null (rows with shuffled columns) and the stability over resamples, in
    [-1, 1], higher is better; they are absent for k = 1.
    """
    if params.k > len(rows):
        raise BadInput(
            f"{params.k} virtual neurons need as many references, and there are {len(rows)}: "
            "choose a smaller k."
        )
    labels, centroids, scores = _labels(rows, params.k, params.seed)
    strength = np.zeros((len(centroids), len(rows)), np.float32)
    strength[labels, np.arange(len(rows))] = 1.0
    return Split(
        neuron=references.neuron,
        method=method[0],
        version=method[1],
        params=asdict(params),
        seed=params.seed,
        references=references,
        strength=strength,
        centroid=centroids.astype(np.float32),
        space=space,
        map=clustering.principal_plane(rows),
        scores=scores,
        provenance=provenance,
    )


def _labels(
    rows: np.ndarray, k: int, seed: int
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Labels i64[K], centroids f32[V,D] and scores for k (0: chosen automatically)."""
    chosen = k
    if k == 0:
        chosen = clustering.choose_k(rows, seed, min(LARGEST_K, len(rows) - 1)).k
    if chosen == 1:
        return np.zeros(len(rows), np.int64), rows.mean(axis=0, keepdims=True), {}
    labels, centroids, _ = clustering.kmeans(rows, chosen, seed)
    null, null_sd = clustering.null_silhouette(rows, chosen, seed)
    scores = {
        "silhouette": clustering.silhouette(rows, labels),
        "null_silhouette": null,
        "null_silhouette_sd": null_sd,
        "stability": clustering.stability(rows, chosen, seed),
    }
    return labels, centroids, scores
