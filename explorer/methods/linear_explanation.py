"""Linear explanations: a signal as a short weighted sum of concepts (arXiv 2405.06855).

The responses of M concepts to the pictures of a split enter only through their mean and
covariance, and S signals only through their covariances with the concepts, so every fit is an
exact least-squares solution of a few equations and a whole layer is explained at once. An elastic
net orders the concepts; a greedy search then keeps those that raise the correlation on the
validation pictures. Test pictures are never seen here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from explorer.methods.elastic_net import elastic_net
from explorer.methods.params import option

ORDERED = 100
"""How many concepts of the elastic net's order the greedy search may look at."""
TOGETHER = 256
"""Signals explained at once: bounds the memory of a layer."""
ROWS = 4096
SMALLEST = 1e-9
"""A concept whose part not explained by those chosen is smaller (of its variance) adds nothing."""


@dataclass(frozen=True)
class Params:
    """Settings of a linear explanation."""

    length: int = option(10, "Longest", "Concepts at most", minimum=1, maximum=30)
    tolerance: float = option(
        0.02,
        "Tolerance",
        "A further concept must raise the validation correlation by this much",
        minimum=0.0,
        maximum=0.5,
        step=0.005,
    )
    width: int = option(
        10, "Width", "Concepts tried for each further one", minimum=1, maximum=ORDERED
    )
    inhibitory: bool = option(
        False, "Inhibitory", "Also propose concepts that lower the signal (negative weights)"
    )
    penalty: float = option(
        0.05,
        "Penalty",
        "Of the elastic net that orders the concepts, on standardised values",
        minimum=0.001,
        maximum=1.0,
        step=0.01,
    )


@dataclass(frozen=True)
class Moments:
    """Concepts over the n pictures of a split: ``mean`` f64[M], ``covariance`` f64[M,M]."""

    n: int
    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def correlation(self) -> np.ndarray:
        """f64[M,M]; 0 where a concept is constant."""
        deviation = np.sqrt(np.diag(self.covariance))
        scale = np.outer(deviation, deviation)
        found = np.zeros_like(scale)
        return np.asarray(np.divide(self.covariance, scale, out=found, where=scale > 0))


@dataclass(frozen=True)
class Targets:
    """S signals over the same pictures: ``mean`` and ``variance`` f64[S], and ``cross`` f64[M,S],
    the covariance of each concept with each signal."""

    mean: np.ndarray
    variance: np.ndarray
    cross: np.ndarray


@dataclass(frozen=True)
class Fit:
    """Explanations of S signals: ``chosen`` i64[S,L] concepts in order of choice (-1 pads),
    ``weight`` f64[S,L], ``bias`` f64[S], ``validation`` f64[S] the correlation on the validation
    pictures (NaN where nothing was chosen)."""

    chosen: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    validation: np.ndarray

    def terms(self, signal: int) -> tuple[np.ndarray, np.ndarray]:
        """Concepts i64[l] and weights f64[l] of one signal."""
        used = self.chosen[signal] >= 0
        return self.chosen[signal][used], self.weight[signal][used]


def moments(responses: np.ndarray) -> Moments:
    """Of concept responses f32[n,M], summed in double precision a few rows at a time."""
    n, concepts = responses.shape
    mean = responses.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((concepts, concepts))
    for start in range(0, n, ROWS):
        centred = responses[start : start + ROWS] - mean
        covariance += centred.T @ centred
    return Moments(n, mean, covariance / n)


def targets(responses: np.ndarray, of: Moments, signals: np.ndarray) -> Targets:
    """Of signals f32[n,S] over the pictures of ``responses`` f32[n,M], whose moments are ``of``."""
    mean = signals.mean(axis=0, dtype=np.float64)
    cross = np.zeros((responses.shape[1], signals.shape[1]))
    variance = np.zeros(signals.shape[1])
    for start in range(0, len(signals), ROWS):
        centred = signals[start : start + ROWS] - mean
        cross += (responses[start : start + ROWS] - of.mean).T @ centred
        variance += (centred**2).sum(axis=0)
    return Targets(mean, variance / of.n, cross / of.n)


def explain(
    train: Moments,
    on_train: Targets,
    validation: Moments,
    on_validation: Targets,
    params: Params,
    forced: bool = False,
) -> Fit:
    """Explain S signals. ``forced``: go on to ``params.length`` terms whatever they gain."""
    parts = []
    for start in range(0, len(on_train.mean), TOGETHER):
        some = slice(start, start + TOGETHER)
        first, second = (
            _Side(train, _part(on_train, some)),
            _Side(validation, _part(on_validation, some)),
        )
        order = ordered(train, first.on, params)
        parts.append(_search(first, second, order, params, forced))
    return Fit(
        np.concatenate([part.chosen for part in parts]),
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.bias for part in parts]),
        np.concatenate([part.validation for part in parts]),
    )


def refit(of: Moments, on: Targets, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares of the first signal on these concepts: weights f64[l] and bias. Where
    concepts repeat one another the weights of smallest length are taken."""
    gram = of.covariance[np.ix_(chosen, chosen)]
    weight = np.linalg.lstsq(gram, on.cross[chosen, 0], rcond=1e-10)[0]
    return weight, float(on.mean[0] - weight @ of.mean[chosen])


def correlations(of: Moments, on: Targets) -> np.ndarray:
    """f64[M,S]: of each concept by itself with each signal; 0 where either is constant."""
    scale = np.sqrt(np.diag(of.covariance)[:, None] * on.variance[None])
    return np.asarray(np.divide(on.cross, scale, out=np.zeros_like(on.cross), where=scale > 0))


def ordered(train: Moments, on_train: Targets, params: Params) -> np.ndarray:
    """i64[S,O]: the concepts to try, by falling weight in the elastic net (by magnitude where
    ``inhibitory``), those without weight by their own correlation."""
    alone = correlations(train, on_train)
    weight = elastic_net(train.correlation, alone, params.penalty)
    if params.inhibitory:
        weight, alone = np.abs(weight), np.abs(alone)
    return np.asarray(np.lexsort((-alone, -weight), axis=0)[:ORDERED].T)


@dataclass(frozen=True)
class _Side:
    """What is known of one split: of its concepts and of the signals on it."""

    of: Moments
    on: Targets

    def among(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Covariances f64[A,I,J] of concepts i64[A,I] with concepts i64[A,J]."""
        return np.asarray(self.of.covariance[first[:, :, None], second[:, None, :]])

    def alone(self, concepts: np.ndarray) -> np.ndarray:
        """Variances of concepts, in their shape."""
        return np.asarray(self.of.covariance[concepts, concepts])

    def signal(self, concepts: np.ndarray, who: np.ndarray) -> np.ndarray:
        """Covariances f64[A,I] of concepts i64[A,I] with the signals ``who`` i64[A]."""
        return np.asarray(self.on.cross[concepts, who[:, None]])


def _search(
    train: _Side, validation: _Side, order: np.ndarray, params: Params, forced: bool
) -> Fit:
    """The greedy search over S signals, one row each. A concept that does not raise the
    correlation by the tolerance is not tried again; the first one need not."""
    signals = len(order)
    chosen = np.full((signals, params.length), -1)
    weight = np.zeros((signals, params.length))
    best = np.full(signals, np.nan)
    untried = np.ones(order.shape, bool)
    who = np.arange(signals)
    for step in range(params.length):
        at = np.argsort(~untried[who], axis=1, kind="stable")[:, : params.width]
        tried = order[who[:, None], at]
        before = weight[who, :step]
        trial, reached = _try(train, validation, who, chosen[who, :step], before, tried)
        reached[~untried[who[:, None], at]] = np.nan
        enough = np.isfinite(reached)
        if step and not forced:
            enough &= reached - best[who, None] >= params.tolerance
        top = np.where(enough, reached, -np.inf).argmax(axis=1)
        rows = np.flatnonzero(enough.any(axis=1))
        untried[who[:, None], at] = enough
        untried[who[rows], at[rows, top[rows]]] = False
        chosen[who[rows], step] = tried[rows, top[rows]]
        weight[who[rows], : step + 1] = trial[rows, :, top[rows]]
        best[who[rows]] = reached[rows, top[rows]]
        who = who[rows]
        if not who.size:
            break
    used = np.where(chosen >= 0, chosen, 0)
    bias = train.on.mean - (weight * train.of.mean[used]).sum(axis=1)
    return Fit(chosen, weight, bias, best)


def _try(
    train: _Side,
    validation: _Side,
    who: np.ndarray,
    chosen: np.ndarray,
    weight: np.ndarray,
    tried: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of signals ``who`` i64[A] on ``chosen`` i64[A,L] and each of ``tried``
    i64[A,W]: weights f64[A,L+1,W] and validation correlations f64[A,W], NaN for a concept that
    the chosen ones already make up. The solution on the chosen ones, ``weight`` f64[A,L], is
    extended by block elimination, so that one solve serves all W."""
    between = train.among(chosen, tried)
    share = np.linalg.solve(train.among(chosen, chosen), between)
    own = train.alone(tried)
    rest = own - (between * share).sum(axis=1)
    usable = rest > SMALLEST * own
    gap = train.signal(tried, who) - (between * weight[:, :, None]).sum(axis=1)
    new = np.divide(gap, rest, out=np.full_like(gap, np.nan), where=usable)
    old = weight[:, :, None] - share * new[:, None, :]
    agreement = new * validation.signal(tried, who)
    agreement += (old * validation.signal(chosen, who)[:, :, None]).sum(axis=1)
    spread = new**2 * validation.alone(tried)
    spread += 2 * new * (old * validation.among(chosen, tried)).sum(axis=1)
    spread += (old * (validation.among(chosen, chosen) @ old)).sum(axis=1)
    scale = spread * validation.on.variance[who, None]
    reached = np.full_like(new, np.nan)
    positive = np.isfinite(scale) & (scale > 0)
    reached[positive] = agreement[positive] / np.sqrt(scale[positive])
    return np.concatenate([old, new[:, None, :]], axis=1), reached


def _part(on: Targets, some: slice) -> Targets:
    return Targets(on.mean[some], on.variance[some], on.cross[:, some])
