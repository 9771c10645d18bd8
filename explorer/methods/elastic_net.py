"""The elastic net of standardised columns from their correlations, for many signals at once."""

from __future__ import annotations

import numpy as np

MIX = 0.99
"""The share of the penalty that is L1; the rest is L2."""
ROUNDS, SWEEPS, SETTLED = 30, 300, 1e-6


def elastic_net(correlation: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    """f64[M,S]: minimise (1/2)|y - Xw|^2/n + penalty (MIX |w|_1 + (1 - MIX) |w|^2 / 2) for
    standardised X and y, given their correlations f64[M,M] and f64[M,S], by coordinate descent
    on growing sets of concepts, all signals together."""
    first, second = penalty * MIX, penalty * (1 - MIX)
    weight = np.zeros_like(target)
    rows = np.arange(target.shape[1])
    for _ in range(ROUNDS):
        used = np.flatnonzero(weight.any(axis=1))
        gradient = target - correlation[used].T @ weight[used]
        idle = weight == 0
        if (np.abs(gradient)[idle] <= first + 1e-5).all():
            break
        size = min(len(target), int((~idle).sum(axis=0).max()) + 32)
        wanted = np.where(idle, np.abs(gradient), np.inf)
        sets = np.argpartition(-wanted, size - 1, axis=0)[:size].T
        gram = correlation[sets[:, :, None], sets[:, None, :]]
        inside = weight[sets, rows[:, None]]
        _descend(gram, gradient[sets, rows[:, None]], inside, first, second)
        weight = np.zeros_like(weight)
        weight[sets, rows[:, None]] = inside
    return weight


def _descend(
    gram: np.ndarray, gradient: np.ndarray, weight: np.ndarray, first: float, second: float
) -> None:
    """Coordinate descent in place on ``weight`` f64[S,A], with ``gram`` f64[S,A,A] of unit
    diagonal and the negative ``gradient`` f64[S,A] there."""
    for _ in range(SWEEPS):
        moved = 0.0
        for each in range(weight.shape[1]):
            old = weight[:, each]
            pull = gradient[:, each] + old
            new = np.sign(pull) * np.maximum(np.abs(pull) - first, 0) / (1 + second)
            change = new - old
            gradient -= gram[:, each] * change[:, None]  # symmetric: rows lie together
            weight[:, each] = new
            moved = max(moved, float(np.abs(change).max()))
        if moved < SETTLED:
            return
