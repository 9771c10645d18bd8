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


@dataclass(frozen=True)
class Responses:
    """Per picture and row, the sign turned where the batch norm turns it: spatial sum f64, mean
    positive part and peak f32, [N,R] each."""

    ids: np.ndarray
    total: np.ndarray
    positive: np.ndarray
    peak: np.ndarray


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
    right = [(parts[at].argmax(1) == k).mean() for k, at in enumerate(own)]
    return {
        "judged": np.array([len(at) for at in own], np.int32),
        "fractions": fractions,
        "fired": fired,
        "shares": shares,
        "share_errors": errors,
        "auc": area,
        "correct": float(np.mean(right)),
        "density": density,
        "edges": edges.astype(np.float32),
    }


def references(images: ImageSet, found: Responses, concepts: int) -> dict[str, Any]:
    """The highest pictures of the channel and of each part, and what they are labelled."""
    top = np.full((concepts + 1, TOP), -1, np.int32)
    value = np.zeros((concepts + 1, TOP), np.float32)
    label, purity = np.full(concepts + 1, -1, np.int32), np.zeros(concepts + 1, np.float32)
    for row in range(concepts + 1):
        best = browse.highest(found.peak[:, row], images.sources[found.ids], TOP)
        top[row, : len(best)] = found.ids[best]
        value[row, : len(best)] = found.peak[best, row]
        label[row], purity[row] = browse.majority(images.labels[found.ids[best]])
    return {
        "top": top,
        "value": value,
        "label": label,
        "purity": purity,
        "ranked": len(found.ids),
    }


def spread(total: int, most: int) -> np.ndarray:
    """i64: at most ``most`` image ids, evenly spaced."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(np.int64))
