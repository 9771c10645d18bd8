"""Measures of a division, from what its rows make of pictures. No network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer import browse
from explorer.networks import dividing
from explorer.records import ImageSet

TOP = 12
BINS = 30
DRAWS = 200
"""Lots that make the null of the purity."""


@dataclass(frozen=True)
class Responses:
    """Per picture and row, the sign turned where the batch norm turns it: spatial sum f64, mean
    positive part and peak f32, [N,R] each; and over the places where row 0 is above zero, sums of
    the row's squares and of its products with row 0, f64[N,R]."""

    ids: np.ndarray
    total: np.ndarray
    positive: np.ndarray
    peak: np.ndarray
    square: np.ndarray
    cross: np.ndarray


def measures(found: Responses, own: Sequence[np.ndarray]) -> dict[str, Any]:
    """Fractions, shares, AUC and densities; row 0 is the channel, 1 ... n its parts, then the
    residual. ``own`` are the places of each concept's pictures."""
    concepts = len(own)
    fractions = np.full((concepts, concepts + 1), np.nan, np.float32)
    shares, errors = np.zeros((2, concepts, concepts), np.float32)
    fired = np.zeros(concepts, np.int32)
    positive = found.positive[:, : concepts + 1]
    parts = positive[:, 1:]
    portion = parts / np.maximum(parts.sum(1, keepdims=True), 1e-12)
    edges = np.linspace(0, max(float(positive[np.concatenate(own)].max()), 1e-6), BINS + 1)
    density = np.zeros((concepts, concepts + 1, BINS), np.int64)
    area = np.full(concepts + 1, np.nan, np.float32)
    for k, at in enumerate(own):
        fires = at[found.total[at, 0] > 0]
        fired[k] = len(fires)
        if fires.size:
            fractions[k] = found.total[fires, 1:].sum(0) / found.total[fires, 0].sum()
        shares[k] = portion[at].mean(0)
        errors[k] = portion[at].std(0) / np.sqrt(len(at))
        rest = np.concatenate([each for j, each in enumerate(own) if j != k])
        area[k + 1] = dividing.auc(parts[at, k], parts[rest, k])
        before = dividing.auc(positive[at, 0], positive[rest, 0])
        area[0] = np.nanmax([area[0], before])
        for row in range(concepts + 1):
            density[k, row] = np.histogram(positive[at, row], edges)[0]
    wrong = [_misplaced(found, at, k, concepts) for k, at in enumerate(own)]
    right = [(parts[at].argmax(1) == k).mean() for k, at in enumerate(own)]
    return {
        "judged": np.array([len(at) for at in own], np.int32),
        "fractions": fractions,
        "fired": fired,
        "shares": shares,
        "share_errors": errors,
        "auc": area,
        "correct": float(np.mean(right)),
        "misplaced": float(np.mean(wrong)),
        "density": density,
        "edges": edges.astype(np.float32),
    }


def _misplaced(found: Responses, at: np.ndarray, own: int, concepts: int) -> float:
    """Squared deviation of the parts from what each should give on pictures of concept ``own``,
    over the channel's squares; NaN where it never fires."""
    squares, crosses = found.square[at].sum(0), found.cross[at].sum(0)
    wrong = squares[1 : concepts + 1].sum() - 2 * crosses[own + 1] + squares[0]
    return float(wrong / squares[0] / concepts) if squares[0] > 0 else float("nan")


def references(images: ImageSet, found: Responses, concepts: int) -> dict[str, Any]:
    """The highest pictures of the channel and of each part, and what they are labelled."""
    top = np.full((concepts + 1, TOP), -1, np.int32)
    value = np.zeros((concepts + 1, TOP), np.float32)
    peaks = np.zeros((concepts + 1, TOP, concepts), np.float32)
    label, purity = np.full(concepts + 1, -1, np.int32), np.zeros(concepts + 1, np.float32)
    for row in range(concepts + 1):
        best = browse.highest(found.peak[:, row], images.sources[found.ids], TOP)
        top[row, : len(best)] = found.ids[best]
        value[row, : len(best)] = found.peak[best, row]
        peaks[row, : len(best)] = found.peak[best, 1 : concepts + 1]
        label[row], purity[row] = browse.majority(images.labels[found.ids[best]])
    random = np.random.default_rng(0)
    count = min(TOP, len(found.ids))
    lots = [random.choice(found.ids, count, replace=False) for _ in range(DRAWS)]
    return {
        "top": top,
        "value": value,
        "peaks": peaks,
        "label": label,
        "purity": purity,
        "purity_null": float(np.mean([browse.majority(images.labels[lot])[1] for lot in lots])),
        "ranked": len(found.ids),
    }


def spread(total: int, most: int) -> np.ndarray:
    """i64: at most ``most`` image ids, evenly spaced."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(np.int64))
