"""Does an explanation predict the signal? Correlations on unseen pictures (arXiv 2405.06855)."""

from __future__ import annotations

import math

import numpy as np

from explorer.records import Simulation

Z95 = 1.959964


def pearson(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Pearson correlation of f[n] with f[n]; 0 where the prediction is constant, NaN where the
    signal is."""
    one = np.asarray(predicted, np.float64) - np.mean(predicted, dtype=np.float64)
    two = np.asarray(actual, np.float64) - np.mean(actual, dtype=np.float64)
    if not np.linalg.norm(two) > 0:
        return float("nan")
    scale = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(one @ two / scale) if scale > 1e-12 * len(one) else 0.0


def simulation(predicted: np.ndarray, actual: np.ndarray) -> Simulation:
    """The correlation with its 95 % interval by Fisher's z (NaN below four pictures)."""
    value, n = pearson(predicted, actual), len(actual)
    if n < 4 or not math.isfinite(value):
        return Simulation(value, float("nan"), float("nan"), n)
    middle = math.atanh(max(-0.999999999, min(0.999999999, value)))
    half = Z95 / math.sqrt(n - 3)
    return Simulation(value, math.tanh(middle - half), math.tanh(middle + half), n)


def range_shares(signal: np.ndarray, effect: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """f64[Q]: the share of the summed magnitude of ``effect`` f[n] that the pictures with the
    highest ``signal`` f[n] have, for each fraction of pictures; NaN where nothing has an effect
    or the fraction is less than one picture."""
    magnitude = np.abs(np.asarray(effect, np.float64))[np.argsort(-signal, kind="stable")]
    total = magnitude.sum()
    counts = np.floor(np.asarray(quantiles) * len(magnitude) + 1e-9).astype(int)
    summed = np.concatenate([[0.0], np.cumsum(magnitude)])[counts]
    known = (counts > 0) & (total > 0)
    return np.asarray(np.divide(summed, total, out=np.full(len(counts), np.nan), where=known))
