"""Directions of a layer: planted ones are found, in blocks as at once."""

from __future__ import annotations

import numpy as np
import pytest

from explorer.compute import projections
from explorer.lab import Report
from explorer.recent import Recent


def silent(fraction: float, message: str) -> None:
    """Progress nobody watches."""


def planted(images: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Means f16[C,N] of three orthogonal directions of very different strength, and those."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(12, 3)))[0].T
    basis *= np.sign(basis[np.arange(3), np.abs(basis).argmax(axis=1)])[:, None]
    weights = random.normal(size=(3, images)) * np.array([[9.0], [3.0], [1.0]])
    return (basis.T @ weights).astype(np.float16), basis


def test_planted_directions_are_found_in_order() -> None:
    means, basis = planted()
    found = projections.directions("l", means, silent)
    assert np.abs((found.vectors[:3] * basis).sum(axis=1)) == pytest.approx(1, abs=0.01)
    assert (np.diff(found.values) <= 0).all()
    truth = np.linalg.svd(means.astype(np.float64).T, compute_uv=False)
    assert found.values[:3] == pytest.approx(truth[:3], rel=1e-4)
    strongest = np.abs(found.vectors).argmax(axis=1)
    assert (found.vectors[np.arange(12), strongest] > 0).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    means, basis = planted()
    whole = projections.project(means, basis.astype(np.float32), silent)
    vectors = projections.directions("l", means, silent).vectors
    monkeypatch.setattr(projections, "BLOCK_BYTES", 4 * 12 * 7)
    told: list[float] = []
    report: Report = lambda fraction, message: told.append(fraction)  # noqa: E731
    assert projections.project(means, basis.astype(np.float32), report) == pytest.approx(whole)
    assert len(told) == 58, "400 images in blocks of 7"
    assert projections.directions("l", means, silent).vectors[:3] == pytest.approx(vectors[:3])
    assert whole == pytest.approx(basis @ means.astype(np.float64), abs=1e-3)


def test_recent_keeps_within_its_limit() -> None:
    kept: Recent[str] = Recent(10)
    kept.put("a", "A", 4)
    kept.put("b", "B", 4)
    assert kept.get("a") == "A"
    kept.put("c", "C", 4)
    assert kept.get("b") is None, "it was used least recently"
    assert (kept.get("a"), kept.get("c")) == ("A", "C")
    kept.put("huge", "H", 11)
    assert kept.get("huge") is None
    assert kept.get("a") == "A"
