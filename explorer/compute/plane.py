"""Rows on a plane, to look at: principal components, and UMAP. NumPy alone, deterministic."""

from __future__ import annotations

import numpy as np

from explorer.compute import gram
from explorer.compute.clustering import centred, checked, distances, distinct
from explorer.compute.one_core import one_core
from explorer.records import Unavailable

PLANE, ROUNDING = 2, 1e-14
"""Axes that are drawn, and what share of the largest spread, squared, is but rounding."""

NEIGHBOURS, FEWEST_NEIGHBOURS = 15, 6
STEPS, STEP = 300, 0.1
REPULSION = 5.0
"""Repelling samples for each attracting one."""

A, B = 0.992175, 1.112253
"""1 / (1 + A d^(2B)) is the least-squares fit of exp(-max(0, d - 0.3)): the closeness of points at
distance d on the plane, for min_dist 0.3 and spread 1, as in PURE's figures."""

JITTER, NEAREST, STEEPEST = 1e-2, 1e-3, 4.0
"""Of the start, which no line can leave otherwise; what the square of a distance is at least where
points repel; and how strongly any two do at most."""


def principal_plane(rows: np.ndarray, inner: np.ndarray | None = None) -> np.ndarray:
    """f32[K,2]: the first two principal components of the rows, in their own units. The sign is
    fixed by the entry of largest magnitude being positive; missing components are zero. ``inner``
    is the Gram matrix of the centred rows, if that is at hand."""
    if inner is None:
        inner = gram.inner_products(centred(checked(rows)))
    values, vectors = np.linalg.eigh(inner)
    values, vectors = values[: -PLANE - 1 : -1], vectors[:, : -PLANE - 1 : -1]
    values = np.where(values > ROUNDING * values.max(), values, 0.0)
    plane = np.zeros((len(vectors), PLANE))
    plane[:, : len(values)] = vectors * np.sqrt(values)
    strongest = plane[np.abs(plane).argmax(axis=0), np.arange(PLANE)]
    return (plane * np.where(strongest < 0, -1, 1)).astype(np.float32)


@one_core()
def umap_plane(rows: np.ndarray, seed: int) -> np.ndarray:
    """f32[K,2]: UMAP of the rows f32[K,D] (McInnes et al. 2018), from 15 neighbours or fewer where
    there are few rows, starting at the principal plane.

    Instead of sampling edges and repelling points, every step takes the mean of what sampling
    would do (Damrich and Hamprecht 2021, section 4), which for so few rows costs less. Raises
    Unavailable for fewer than four different rows: show ``principal_plane`` then.
    """
    rows = checked(rows)
    if distinct(rows) < 4:
        raise Unavailable(
            "UMAP needs at least four different rows: look at the principal components instead."
        )
    few = min(FEWEST_NEIGHBOURS, len(rows) - 1)
    near = neighbourhood(distances(rows), int(np.clip(len(rows) // 4, few, NEIGHBOURS)))
    near /= near.max()
    start = principal_plane(rows).astype(np.float64)
    start *= 10 / max(float(np.abs(start).max()), 1e-12)
    x, y = (start + np.random.default_rng(seed).normal(0, JITTER, start.shape)).T
    repelling = REPULSION * near.sum(axis=1) / len(rows)
    for step in range(STEPS):
        across, along = x[:, None] - x, y[:, None] - y
        square = across**2 + along**2
        far = A * square**B
        pull = near * (4 * A * B) * square ** (B - 1) / (1 + far)
        push = 2 * B / ((NEAREST + square) * (1 + far))
        size = STEP * (1 - step / STEPS)
        x, y = (
            place + size * (repelling * _clipped(push * apart) - (pull * apart).sum(axis=1))
            for place, apart in ((x, across), (y, along))
        )
    return np.stack([x, y], axis=1).astype(np.float32)


def _clipped(forces: np.ndarray) -> np.ndarray:
    total: np.ndarray = forces.clip(-STEEPEST, STEEPEST).sum(axis=1)
    return total


def neighbourhood(apart: np.ndarray, neighbours: int) -> np.ndarray:
    """f64[K,K]: how surely two rows are neighbours, 0 to 1, from distances f64[K,K].

    Of row i to its nearest ``neighbours`` (itself one of them): exp(-(d - r) / s), r the smallest
    distance above 0 and s such that these sum to log2(neighbours); then that either of two rows
    is a neighbour of the other.
    """
    count = len(apart)
    order = np.argsort(apart - np.eye(count), axis=1, kind="stable")[:, 1:neighbours]
    nearest = np.take_along_axis(apart, order, 1)
    first = np.where(nearest > 0, nearest, np.inf).min(axis=1, keepdims=True)
    beyond = np.maximum(nearest - np.where(np.isinf(first), 0.0, first), 0.0)
    low, high, scale = np.zeros((count, 1)), np.full((count, 1), np.inf), np.ones((count, 1))
    for _ in range(64):
        large = np.exp(-beyond / scale).sum(axis=1, keepdims=True) > np.log2(neighbours)
        low, high = np.where(large, low, scale), np.where(large, scale, high)
        scale = np.where(np.isinf(high), 2 * scale, (low + high) / 2)
    scale = np.maximum(scale, NEAREST * np.maximum(nearest.mean(axis=1, keepdims=True), 1e-12))
    one_way = np.zeros_like(apart)
    np.put_along_axis(one_way, order, np.exp(-beyond / scale), 1)
    either: np.ndarray = one_way + one_way.T - one_way * one_way.T
    return either
