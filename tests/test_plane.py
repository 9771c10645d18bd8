"""Rows on a plane: the principal one, and UMAP against a slow twin that samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit
from sklearn.manifold import trustworthiness
from test_clustering import profiles

from explorer.compute import plane
from explorer.compute.clustering import centred, distances, silhouette
from explorer.compute.plane import neighbourhood, principal_plane, umap_plane
from explorer.records import Unavailable


def test_principal_plane_has_the_largest_spread_and_a_fixed_sign() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 8)) * [9, 5, 1, 1, 1, 1, 1, 1]
    plane = principal_plane(rows)
    assert plane.dtype == np.float32
    assert plane.shape == (50, 2)
    values = np.linalg.svd(centred(rows), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(plane, axis=0), values[:2], rtol=1e-5)
    np.testing.assert_allclose(plane, principal_plane(-rows), atol=1e-5)
    assert (plane[np.abs(plane).argmax(axis=0), [0, 1]] > 0).all()
    assert principal_plane(np.ones((1, 3))).tolist() == [[0, 0]]
    assert principal_plane(np.ones((3, 1))).tolist() == [[0, 0]] * 3


def sampled(rows: np.ndarray, epochs: int = 60) -> np.ndarray:
    """UMAP as published: edges sampled one after another, each with five points that repel."""
    rng = np.random.default_rng(0)
    near = neighbourhood(distances(rows), 10)
    near /= near.max()
    points = 10 * principal_plane(rows) / np.abs(principal_plane(rows)).max()
    edges = np.argwhere(near > 0)
    for epoch in range(epochs):
        size = 1 - epoch / epochs
        for head, tail in edges[rng.random(len(edges)) < near[edges[:, 0], edges[:, 1]]]:
            apart = points[head] - points[tail]
            square = max(float(apart @ apart), 1e-12)
            far = plane.A * square**plane.B
            moved = size * 2 * plane.B * far / square / (1 + far) * apart
            points[head] -= moved
            points[tail] += moved
            for other in rng.integers(len(points), size=5):
                apart = points[head] - points[other]
                square = float(apart @ apart)
                far = plane.A * square**plane.B
                push = 2 * plane.B / ((plane.NEAREST + square) * (1 + far)) * apart
                points[head] += size * push.clip(-4, 4)
    return points


def test_umap_keeps_neighbours_as_well_as_sampling_does() -> None:
    rows = profiles(3, 6)[0][:40]
    slow = trustworthiness(rows, sampled(rows), n_neighbors=7)
    assert trustworthiness(rows, umap_plane(rows, 0), n_neighbors=7) > slow - 0.02


def test_umap_keeps_groups_apart_and_repeats_itself() -> None:
    rows, labels = profiles(3, 6)
    found = umap_plane(rows, 0)
    assert found.shape == (100, 2)
    assert found.dtype == np.float32
    assert silhouette(found, labels) > 0.5
    assert np.array_equal(found, umap_plane(rows, 0))
    assert not np.array_equal(found, umap_plane(rows, 1))


def test_umap_of_few_or_equal_rows() -> None:
    rows, _ = profiles(3, 6)
    assert np.isfinite(umap_plane(rows[:4], 0)).all()
    assert np.isfinite(umap_plane(np.repeat(rows[:5], 20, axis=0), 0)).all()
    line = umap_plane(np.arange(40.0)[:, None], 0)
    assert np.isfinite(line).all()
    with pytest.raises(Unavailable, match="four"):
        umap_plane(np.repeat(rows[:3], 5, axis=0), 0)


def test_the_curve_of_closeness_is_the_least_squares_fit() -> None:
    x = np.linspace(0, 3, 300)
    wanted = np.exp(-np.maximum(x - 0.3, 0.0))
    (a, b), _ = curve_fit(lambda x, a, b: 1 / (1 + a * x ** (2 * b)), x, wanted)
    assert (pytest.approx(a, abs=1e-5), pytest.approx(b, abs=1e-5)) == (plane.A, plane.B)


def test_memberships_sum_to_the_logarithm_of_the_neighbours() -> None:
    rows, _ = profiles(2, 1)
    apart = distances(rows)
    near = neighbourhood(apart, 15)
    assert np.array_equal(near, near.T)
    assert near.diagonal().tolist() == [0.0] * 100
    order = np.argsort(apart, axis=1)[:, 1:15]
    closest = np.take_along_axis(near, order[:, :1], 1)
    np.testing.assert_allclose(closest, 1.0)
    assert (np.take_along_axis(near, order, 1).sum(axis=1) >= np.log2(15) - 1e-6).all()
