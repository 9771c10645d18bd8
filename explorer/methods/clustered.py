"""From rows to a Split by k-means: shared by every method that clusters its references."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from explorer.compute import choosing, clustering, plane
from explorer.compute.one_core import one_core
from explorer.lab import Lab
from explorer.methods.method import Method
from explorer.methods.params import option
from explorer.records import NoCluster, References, Split

LARGEST_K = 8


def k_option() -> Any:
    """The parameter ``k`` of a clustering method."""
    return option(
        0,
        "Virtual neurons",
        "How many to make; 0 chooses by silhouette and stability, and may answer 1",
        minimum=0,
        maximum=LARGEST_K,
    )


def root_option() -> Any:
    """The parameter ``root``."""
    return option(
        False,
        "Square roots",
        "Divide the signed square roots of the rows, so that a few strong channels do not decide "
        "alone; distances between roots of shares are those of Hellinger",
    )


def seed_option() -> Any:
    """The parameter ``seed``."""
    return option(0, "Seed", "Of every random choice", minimum=0, maximum=2**31 - 1)


def origin(lab: Lab) -> dict[str, Any]:
    """What a split was made from, for its provenance."""
    return {
        "network": f"{lab.network.source} ({lab.network.weights})",
        "weights": lab.network.digest,
        "pictures": lab.images.digest,
    }


@one_core()
def cluster(
    method: Method,
    lab: Lab,
    params: Any,
    references: References,
    rows: np.ndarray,
    space: str,
) -> Split:
    """Divide the references by k-means on ``rows`` f32[K,D] (``params.k``, 0 = automatic).

    Rows of nothing but zeros (no relevance reaches the lower layer: the neuron is at its bias)
    belong to no virtual neuron. ``params`` needs ``k`` and ``seed``. Scores hold the share of such
    ``outliers``, and the silhouette, its null (rows with shuffled
    columns) and the stability over resamples, in [-1, 1], higher is better; they are absent for
    k = 1. ``provenance`` gains the ``profile`` of the same scores for every k that was tried, and
    the k that ``auto`` chooses.
    """
    used = rows.any(axis=1)
    count = int(used.sum())
    if not count:
        raise NoCluster(
            f"None of the {len(rows)} references has anything to divide in {space}: the neuron is "
            "at its bias there, so choose another lower layer or neuron."
        )
    if params.k > count:
        raise NoCluster(
            f"{params.k} virtual neurons need as many references, and there are {count}: "
            "choose a smaller k."
        )
    labels, centroids, scores, profile = _divide(rows[used], params.k, params.seed)
    if len(centroids) < params.k:
        raise NoCluster(
            f"The {count} references have only {len(centroids)} distinct rows in {space}: "
            "choose a smaller k or another space."
        )
    strength = np.zeros((len(centroids), len(rows)), np.float32)
    strength[labels, np.flatnonzero(used)] = 1.0
    return Split(
        neuron=references.neuron,
        method=method.name,
        version=method.version,
        params=asdict(params),
        seed=params.seed,
        references=references,
        strength=strength,
        centroid=centroids,
        space=space,
        map=plane.principal_plane(rows),
        scores={"outliers": 1 - count / len(rows), **scores},
        provenance={**origin(lab), "profile": profile},
    )


def nearest_centroid(rows: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each row, and its distance over that to the second nearest; rows of
    nothing but zeros belong to none (-1)."""
    labels, ratio = clustering.nearest(rows, split.centroid)
    return np.where(rows.any(axis=1), labels, -1), ratio


def _divide(
    rows: np.ndarray, k: int, seed: int
) -> tuple[np.ndarray, np.ndarray, dict[str, float], dict[str, Any]]:
    """Labels i64[K], centroids f32[V,D], the scores at the k used (0: chosen automatically), and
    the profile of scores over every k that was tried."""
    choice = _choice(rows.tobytes(), rows.shape, rows.dtype.str, seed)
    labels, centroids, _ = clustering.kmeans(rows, k or choice.k, seed)
    tried = len(choice.silhouettes)
    profile = {
        "chosen": choice.k,
        "k": list(range(2, 2 + tried)),
        "silhouette": [float(value) for value in choice.silhouettes],
        "stability": [float(value) for value in choice.stabilities],
        "null_shuffled": [float(value) for value in choice.shuffled],
        "null_unimodal": [float(value) for value in choice.unimodal],
    }
    at = len(centroids) - 2
    if not 0 <= at < tried:
        return labels, centroids, {}, profile
    scores = {
        "silhouette": float(choice.silhouettes[at]),
        "stability": float(choice.stabilities[at]),
        "null_silhouette": float(choice.shuffled[at]),
        "null_silhouette_sd": float(choice.shuffled_sd[at]),
    }
    return labels, centroids, scores, profile


@lru_cache(maxsize=4)
def _choice(data: bytes, shape: tuple[int, ...], dtype: str, seed: int) -> choosing.Choice:
    """``choose_k``, remembered, because the same rows are asked for one k after another."""
    return choosing.choose_k(np.frombuffer(data, dtype).reshape(shape), seed, LARGEST_K)
