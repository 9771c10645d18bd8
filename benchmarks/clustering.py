"""Clustering of 100 references by 1,024 channels, beside scikit-learn's k-means."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from benchmarks.interleaved import interleave, spread
from benchmarks.options import Options
from explorer.compute.choosing import choose_k
from explorer.compute.clustering import by_size, kmeans, normalise
from explorer.compute.plane import umap_plane

REFERENCES, CHANNELS = 100, 1024
KS = range(2, 6)
LAYER = {True: 32, False: 2048}


def measure(options: Options) -> dict[str, Any]:
    """Milliseconds a neuron, seconds a layer, and how many divisions scikit-learn makes too."""
    rows = [drawn(seed) for seed in range(32)]
    turn = iter(range(10**6))

    def each(work: Any) -> Any:
        def ask() -> None:
            work(rows[next(turn) % len(rows)])

        return ask

    variants = {
        "kmeans": each(lambda row: [kmeans(row, k, 0) for k in KS]),
        "sklearn": each(lambda row: [_plain(row, k) for k in KS]),
        "choose_k": each(lambda row: choose_k(row, 0)),
        "map": each(lambda row: umap_plane(row, 0)),
    }
    seconds = interleave(variants, 3 if options.quick else 32)
    found: dict[str, Any] = {}
    for name, taken in seconds.items():
        found |= spread(f"clustering_{name}_ms", taken * 1000)
    same = [
        np.array_equal(kmeans(row, k, 0)[0], _plain(row, k))
        for row in rows[: 4 if options.quick else 16]
        for k in KS
    ]
    count = LAYER[options.quick]
    return found | {
        "clustering_layer_seconds": sum(_whole(drawn(1000 + seed)) for seed in range(count)),
        "clustering_layer_neurons": count,
        "clustering_same_as_sklearn_share": float(np.mean(same)),
    }


def drawn(seed: int) -> np.ndarray:
    """f32[100,1024]: rows like relevance, of one to four groups more or less far apart."""
    rng = np.random.default_rng(seed)
    groups = 1 + seed % 4
    common = rng.gamma(0.5, 1, CHANNELS)
    own = rng.gamma(0.3, 1, (groups, CHANNELS)) * (rng.random((groups, CHANNELS)) < 0.1)
    labels = rng.permutation(np.arange(REFERENCES) % groups)
    strength = (0.3, 1.0, 3.0)[seed % 3]
    noise = rng.gamma(4, 0.25, (REFERENCES, CHANNELS))
    return normalise((common + strength * own[labels]) * noise)


def _whole(rows: np.ndarray) -> float:
    """Seconds for one neuron, every k."""
    start = time.perf_counter()
    for k in KS:
        kmeans(rows, k, 0)
    return time.perf_counter() - start


def _plain(rows: np.ndarray, k: int) -> np.ndarray:
    with threadpool_limits(1):
        fitted = KMeans(k, n_init=10, random_state=0).fit(rows.astype(np.float64))
    return by_size(fitted.labels_)
