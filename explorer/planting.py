"""Which channels of a layer to plant together: sources that are clean and share no references.

A planted channel is the sum of G source channels, each over its 99.9th percentile of image maxima.
Sources are channels whose references are alike (coherence above the layer's median, in the space of
an embedder) and disjoint from those of the other sources. "far" and "near" sources are those whose
references lie in the top and bottom third of distances between all disjoint pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from explorer.records import CLEAN, JOINS, REGIMES, BadInput, Plant, Scan, Sum

PERCENTILE = 99.9
CLEAR = 0.7
"""A reference is clearly of one source when that gives so much of its value."""
CLEARLY = 0.6
"""Share of the references that must be clear."""
LEAST = 0.05
"""A mixture counts where every source still drives this share of the references."""
TRIED = 12
"""Candidates that are tried for each channel to plant, at most so many for each source."""


@dataclass(frozen=True)
class Sources:
    """The M clean channels of a layer: ``channels`` i64[M], ``scale`` f64[M], ``maxima`` f32[M,N]
    over their scale, ``top`` bool[M,N] their references, and ``apart`` f64[M,M], distances between
    the centres of those (NaN where they are not disjoint). Far pairs are ``far`` apart or more,
    near ones ``near`` or less."""

    channels: np.ndarray
    scale: np.ndarray
    maxima: np.ndarray
    top: np.ndarray
    apart: np.ndarray
    near: float
    far: float

    def within(self, regime: str) -> np.ndarray:
        """bool[M,M]: the pairs of a regime."""
        with np.errstate(invalid="ignore"):
            return self.apart >= self.far if regime == "far" else self.apart <= self.near


def sources(scan: Scan, embeddings: np.ndarray, references: int) -> Sources:
    """The clean channels of a layer. ``embeddings`` f32[N,E] are of every picture, of unit length;
    ``references`` is how many pictures stand for a channel. Raises BadInput where fewer than two
    channels could be sources, or no two have disjoint references."""
    maxima = np.where(scan.valid, np.asarray(scan.maximum[:], np.float32), 0.0)
    usable = np.flatnonzero((maxima > 0).sum(axis=1) >= references)
    if len(maxima[0]) < 2 * references or usable.size < 4:
        raise BadInput(
            f"Planting needs at least {2 * references} pictures and four channels that fire on "
            f"{references} of them, and here are {maxima.shape[1]} pictures and {usable.size} such "
            "channels: use more pictures, another layer or fewer references."
        )
    order = np.argsort(-maxima[usable], axis=1, kind="stable")[:, :references]
    centres = np.stack([embeddings[row].mean(axis=0) for row in order]).astype(np.float64)
    coherence = (centres**2).sum(axis=1)  # the mean cosine of two references, but for a constant
    clean = np.flatnonzero(coherence > np.median(coherence))
    top = np.zeros((len(clean), maxima.shape[1]), bool)
    np.put_along_axis(top, order[clean], True, axis=1)
    apart = np.sqrt(np.maximum(_squared(centres[clean]), 0.0))
    apart[(top.astype(np.float32) @ top.T.astype(np.float32)) > 0] = np.nan
    pairs = apart[np.triu_indices(len(clean), 1)]
    if not np.isfinite(pairs).any():
        raise BadInput(
            f"No two clean channels of {scan.layer} have disjoint references (0 can be planted): "
            "use more pictures or fewer references."
        )
    near, far = np.nanquantile(pairs, [1 / 3, 2 / 3])
    channels = usable[clean]
    scale = np.percentile(maxima[channels], PERCENTILE, axis=1)
    return Sources(channels, scale, maxima[channels] / scale[:, None], top, apart, near, far)


def candidates(
    found: Sources,
    regime: str,
    groups: int,
    references: int,
    wanted: int,
    seed: int,
    join: str = JOINS[0],
) -> tuple[Sum, ...]:
    """Sums that seem worth planting, judged by the maxima of their sources alone, in random order
    and each source in few of them."""
    rng = np.random.default_rng([seed, groups, REGIMES.index(regime)])
    least = round(0.8 * references / (2 * groups))  # the maxima say it roughly
    taken = np.zeros(len(found.channels), int)
    kept: list[Sum] = []
    for members in _sets(found.within(regime), groups, rng):
        at = list(members)
        if (taken[at] >= TRIED).any():
            continue
        maxima = found.maxima[at]
        best = np.argsort(-maxima.max(axis=0), kind="stable")[:references]
        if np.bincount(maxima[:, best].argmax(axis=0), minlength=groups).min() < least:
            continue
        taken[at] += 1
        kept.append(_sum(found, at, regime, join))
        if len(kept) >= TRIED * wanted:
            break
    return tuple(kept)


def mixed(chosen: Sum, mix: float) -> Sum:
    """The same sources with every one but the first ``mix`` times as strong."""
    first, *rest = chosen.weights
    weights = (first, *(weight * mix for weight in rest))
    return replace(chosen, weights=weights, mix=mix)


def untouched(chosen: Sequence[Sum], wanted: int, seed: int) -> tuple[Sum, ...]:
    """Some of the sources by themselves."""
    weights = {
        source: weight
        for each in chosen
        for source, weight in zip(each.sources, each.weights, strict=True)
    }
    drawn = np.random.default_rng([seed, 1]).permutation(sorted(weights))[:wanted]
    return tuple(Sum((int(c),), (weights[int(c)],), CLEAN, 1.0, 0.0) for c in np.sort(drawn))


def balanced(plant: Plant, references: int) -> bool:
    """Whether every source gives its part of the references, and most of them clearly."""
    groups = len(plant.sum.sources)
    counts = np.bincount(plant.truth, minlength=groups)
    full = len(plant.index) == references and counts.min() >= references / (2 * groups)
    return bool(full and (plant.share >= CLEAR).mean() >= CLEARLY)


def varied(plant: Plant) -> bool:
    """Whether every source gives some of the references."""
    counts = np.bincount(plant.truth, minlength=len(plant.sum.sources))
    return bool(counts.min() >= max(2.0, LEAST * len(plant.index)))


def separate(plants: Sequence[Plant]) -> list[Plant]:
    """As many as can be had by taking first those whose sources are in the fewest others, with no
    source in two of them."""
    uses: dict[int, int] = {}
    for plant in plants:
        for source in plant.sum.sources:
            uses[source] = uses.get(source, 0) + 1
    used: set[int] = set()
    kept = []
    for plant in sorted(plants, key=lambda each: min(uses[s] for s in each.sum.sources)):
        if used.isdisjoint(plant.sum.sources):
            used.update(plant.sum.sources)
            kept.append(plant)
    return kept


def _sum(found: Sources, at: list[int], regime: str, join: str) -> Sum:
    distance = float(np.mean([found.apart[pair] for pair in combinations(at, 2)]))
    channels = tuple(int(channel) for channel in found.channels[at])
    return Sum(channels, tuple(1.0 / found.scale[at]), regime, 1.0, distance, join)


def _sets(joined: np.ndarray, groups: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Every pair that is joined, in random order, and with it as many others, joined to all of the
    set, as there are groups; sets that cannot be filled are passed over."""
    first, second = np.nonzero(np.triu(joined, 1))
    for pair in rng.permutation(len(first)):
        members = [int(first[pair]), int(second[pair])]
        while len(members) < groups:
            others = np.flatnonzero(joined[members].all(axis=0))
            if not others.size:
                break
            members.append(int(rng.choice(others)))
        if len(members) == groups:
            yield tuple(members)


def _squared(centres: np.ndarray) -> np.ndarray:
    norms = (centres**2).sum(axis=1)
    squared: np.ndarray = norms[:, None] + norms[None] - 2 * centres @ centres.T
    return squared
