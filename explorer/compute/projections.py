"""Directions in a layer's activation space, from the spatial means of all scanned images.

The means f16[C,N] lie on disk; they are read in blocks of images, so that a million images
never lie in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from explorer.lab import Report
from explorer.records import Directions, Stored

BLOCK_BYTES = 32 * 2**20
"""How much of the means is read at once, as f32."""


def project(means: Stored, vectors: np.ndarray, report: Report) -> np.ndarray:
    """f32[V,N]: the projections of all images on vectors f32[V,C]."""
    found = np.empty((len(vectors), means.shape[1]), np.float32)
    for images, block in _blocks(means, "Projecting pictures", report):
        found[:, images] = vectors @ block
    return found


def directions(layer: str, means: Stored, report: Report) -> Directions:
    """The right singular vectors of the images' rows, by the eigenvectors of their second moments
    (C x C, summed in f64): the SVD start of concept vectors (arXiv 2304.09707)."""
    moments = np.zeros((len(means), len(means)))
    for _, block in _blocks(means, "Finding singular directions", report):
        wide = block.astype(np.float64)
        moments += wide @ wide.T
    values, vectors = np.linalg.eigh(moments)
    vectors = vectors.T[::-1]
    strongest = vectors[np.arange(len(vectors)), np.abs(vectors).argmax(axis=1)]
    vectors = vectors * np.where(strongest < 0, -1, 1)[:, None]
    singular = np.sqrt(np.maximum(values[::-1], 0))
    return Directions(layer, vectors.astype(np.float32), singular.astype(np.float32))


def _blocks(means: Stored, what: str, report: Report) -> Iterator[tuple[slice, np.ndarray]]:
    channels, count = means.shape
    size = max(1, BLOCK_BYTES // (4 * channels))
    for start in range(0, count, size):
        report(start / count, f"{what}: {start:,} of {count:,}")
        images = slice(start, min(start + size, count))
        yield images, np.asarray(means[:, images], np.float32)
