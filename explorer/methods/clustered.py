"""From rows to a Split by k-means: shared by every method that clusters its references."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from explorer.compute import beside, choosing, clustering
from explorer.lab import Lab
from explorer.methods.method import Method
from explorer.methods.params import option
from explorer.records import NoCluster, References, Split

LARGEST_K = choosing.LARGEST_K


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


def cluster(
    method: Method,
    lab: Lab,
    params: Any,
    references: References,
    rows: np.ndarray,
    space: str,
) -> Split:
    """Divide the references by k-means on ``rows`` f32[K,D] (``params.k``, 0 = automatic).

    Rows of nothing but zeros (no relevance reaches the lower layer: the neuron is at its bias, or
    by LRP the layer only opens gates) belong to no virtual neuron. ``params`` needs ``k`` and
    ``seed``. Scores hold the share of such ``outliers``, and the silhouette, its null (rows with
    shuffled columns) and the stability over resamples, in [-1, 1], higher is better; they are
    absent for k = 1. ``provenance`` gains the ``profile`` of the same scores for every k that was
    tried, and the k that ``auto`` chooses.
    """
    used = rows.any(axis=1)
    count = int(used.sum())
    if not count:
        raise NoCluster(
            f"None of the {len(rows)} references has anything to divide in {space}: there the "
            "neuron is at its bias, or the layer only opens gates, which have no relevance by LRP. "
            "Choose another lower layer or neuron."
        )
    if params.k > count:
        raise NoCluster(
            f"{params.k} virtual neurons need as many references, and there are {count}: "
            "choose a smaller k."
        )
    made = beside.divided(rows, params.k, params.seed)
    if len(made.centroids) < params.k:
        raise NoCluster(
            f"The {count} references have only {len(made.centroids)} distinct rows in {space}: "
            "choose a smaller k or another space."
        )
    strength = np.zeros((len(made.centroids), len(rows)), np.float32)
    strength[made.labels, np.flatnonzero(used)] = 1.0
    return Split(
        neuron=references.neuron,
        method=method.name,
        version=method.version,
        params=asdict(params),
        seed=params.seed,
        references=references,
        strength=strength,
        centroid=made.centroids,
        space=space,
        map=made.map,
        scores={"outliers": 1 - count / len(rows), **made.scores},
        provenance={**origin(lab), "profile": made.profile},
    )


def nearest_centroid(rows: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each row, and its distance over that to the second nearest; rows of
    nothing but zeros belong to none (-1)."""
    labels, ratio = clustering.nearest(rows, split.centroid)
    return np.where(rows.any(axis=1), labels, -1), ratio
