"""Methods compared over many neurons: PURE's table (2404.06453, evaluation) with nulls and errors.

Each neuron is measured by itself (``measure``); means, correlations over subsets of neurons and
paired differences are made of that. Definitions are in docs/scores.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from explorer.compute.clustering import distances
from explorer.records import EvaluationRow, PairedDifference
from explorer.scores.alignment import separation, standard_error

CORRELATED = 50
"""References of each neuron whose pairwise distances are correlated, as in the paper."""

SUBSETS = 30
LEAST_NEURONS = 2 * SUBSETS
"""From so many neurons on, correlations are pooled over random subsets; below, over each neuron."""

SHUFFLES = 20


@dataclass(frozen=True)
class Measured:
    """One neuron under one method and k before one judge. ``null`` and ``null_sd`` are those of
    the gap; ``moments`` f64[1 + SHUFFLES, 6] are n and the sums of x, y, xx, yy and xy over pairs
    of references, x a distance by the method and y by the judge: as they are, then with the
    method's references shuffled."""

    parts: int
    intra: float
    inter: float
    overall: float
    null: float
    null_sd: float
    kept: float
    moments: np.ndarray


def measure(
    rows: np.ndarray, embeddings: np.ndarray, labels: np.ndarray, seed: Sequence[int]
) -> Measured:
    """Judge the split of one neuron: rows f32[K,D] that the method divided, embeddings f32[K,E] by
    the judge, labels i64[K] with -1 for outliers, which count only in the correlation."""
    rng = np.random.default_rng(seed)
    kept = labels >= 0
    apart = distances(embeddings)
    inside = apart[np.ix_(kept, kept)]
    intra, inter, gap = separation(inside, labels[kept], rng)
    pairs = inside[np.triu_indices(len(inside), 1)]
    return Measured(
        parts=int(labels.max(initial=-1)) + 1,
        intra=intra.value,
        inter=inter.value,
        overall=float(pairs.mean()) if len(pairs) else float("nan"),
        null=gap.null,
        null_sd=gap.null_sd,
        kept=float(kept.mean()),
        moments=_moments(distances(rows[:CORRELATED]), apart[:CORRELATED, :CORRELATED], rng),
    )


def summarise(
    method: str, k: int, judge: str, measured: Sequence[Measured | None], seed: int
) -> EvaluationRow:
    """One row of the table; ``k`` 0 for a method that finds k itself, None for a neuron that could
    not be divided. Distances and gap are means over the neurons that have both intra and inter."""
    found = [each for each in measured if each is not None]
    whole = [each for each in found if np.isfinite(each.inter - each.intra)]
    intra, inter, overall, null, null_sd, kept = (
        np.array([getattr(each, name) for each in whole], np.float64)
        for name in ("intra", "inter", "overall", "null", "null_sd", "kept")
    )
    correlation, error, shuffled, count = correlate([each.moments for each in found], seed)
    return EvaluationRow(
        method=method,
        k=k or _mean(np.array([each.parts for each in found], np.float64)),
        own=k == 0,
        judge=judge,
        intra=_mean(intra),
        intra_se=standard_error(intra),
        inter=_mean(inter),
        inter_se=standard_error(inter),
        gap=_mean(inter - intra),
        gap_se=standard_error(inter - intra),
        gap_null=_mean(null),
        gap_null_sd=float(np.sqrt((null_sd**2).sum()) / len(whole)) if whole else float("nan"),
        overall=_mean(overall),
        correlation=correlation,
        correlation_se=error,
        correlation_null=shuffled,
        correlation_n=count,
        kept=_mean(kept),
        n=len(whole),
    )


def correlate(moments: Sequence[np.ndarray], seed: int) -> tuple[float, float, float, int]:
    """Pearson correlation of distances: its mean over random subsets of neurons whose pairs are
    pooled (over neurons where there are too few), standard error, null, and how many were averaged.
    """
    count = len(moments)
    if not count:
        return float("nan"), float("nan"), float("nan"), 0
    order = np.random.default_rng(seed).permutation(count)
    subsets = np.array_split(order, SUBSETS if count >= LEAST_NEURONS else count)
    pooled = np.stack([np.sum([moments[each] for each in subset], axis=0) for subset in subsets])
    values = _pearson(pooled)  # [subsets, 1 + shuffles]
    values = values[np.isfinite(values).all(axis=1)]
    return _mean(values[:, 0]), standard_error(values[:, 0]), _mean(values[:, 1:]), len(values)


def differences(
    rows: Sequence[EvaluationRow], gaps: np.ndarray, ks: Sequence[int]
) -> tuple[PairedDifference, ...]:
    """Every two methods on the same neurons, at each k and before each judge. ``gaps`` f64[R,M] are
    those of the rows; a method that finds k itself is compared with the others at each of ``ks``.
    """
    found = []
    for judge in dict.fromkeys(row.judge for row in rows):
        at = [each for each, row in enumerate(rows) if row.judge == judge]
        for k in (0, *ks):
            here = [each for each in at if rows[each].own or rows[each].k == k]
            for one, two in combinations(here, 2):
                if (rows[one].own and rows[two].own) == (k == 0):
                    mean, error, low, high, n = paired(gaps[one], gaps[two])
                    names = rows[one].method, rows[two].method
                    found.append(PairedDifference(*names, k, judge, mean, error, low, high, n))
    return tuple(found)


def paired(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float, int]:
    """Mean of first minus second over neurons that have both, standard error, and the ends of the
    95 % confidence interval by Student's t; NaN ends for fewer than two neurons."""
    from scipy.special import stdtrit

    apart = np.asarray(first, np.float64) - second
    apart = apart[np.isfinite(apart)]
    mean, error, count = _mean(apart), standard_error(apart), len(apart)
    half = float(stdtrit(count - 1, 0.975)) * error if count > 1 else float("nan")
    return mean, error, mean - half, mean + half, count


def _moments(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pairs that the judge cannot tell apart are left out (the same picture twice)."""
    upper = np.triu_indices(len(first), 1)
    y = second[upper]
    usable = y > 0
    y = y[usable]
    orders = [np.arange(len(first)), *(rng.permutation(len(first)) for _ in range(SHUFFLES))]
    found = np.empty((len(orders), 6))
    for run, order in enumerate(orders):
        x = first[np.ix_(order, order)][upper][usable]
        found[run] = len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y
    return found


def _pearson(moments: np.ndarray) -> np.ndarray:
    """From sums [..., 6]; NaN where either distance does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    one, two = n * xx - x * x, n * yy - y * y
    varied = (one > 1e-9 * n * xx) & (two > 1e-9 * n * yy)
    scale = np.sqrt(np.where(varied, one * two, 1.0))
    return np.asarray(np.where(varied, (n * xy - x * y) / scale, np.nan))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
