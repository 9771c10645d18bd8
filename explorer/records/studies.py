"""What is measured of many neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.records.answers import EmbedderInfo, ReferenceQuery


@dataclass(frozen=True)
class Sweep:
    """Splits of M neurons of a layer by one method: ``channels`` i32[M], ``k`` i32[M] virtual
    neurons of each (0: none was found, -1: the neuron is dead), ``silhouette`` and ``stability``
    f32[M] (NaN where the split has none). Each split is stored as if asked for by itself."""

    layer: str
    method: str
    version: int
    params: Mapping[str, Any]
    references: ReferenceQuery
    channels: np.ndarray
    k: np.ndarray
    silhouette: np.ndarray
    stability: np.ndarray
    seconds: float


@dataclass(frozen=True)
class EvaluationRow:
    """A method at one k before one judge: means over ``n`` neurons, each with its standard error.

    ``k`` is the mean number of virtual neurons where ``own`` (the method chooses it itself).
    ``gap_null`` and ``gap_null_sd`` are mean and standard deviation that the mean gap has under
    random labels. ``correlation`` is a mean over ``correlation_n`` subsets of neurons (or
    neurons), ``correlation_null`` the same with the rows of each neuron shuffled. ``kept`` is the
    mean share of references that belong to a virtual neuron."""

    method: str
    k: float
    own: bool
    judge: str
    intra: float
    intra_se: float
    inter: float
    inter_se: float
    gap: float
    gap_se: float
    gap_null: float
    gap_null_sd: float
    overall: float
    correlation: float
    correlation_se: float
    correlation_null: float
    correlation_n: int
    kept: float
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """Gap of the method ``first`` minus that of ``second`` on the same neurons, at ``k`` (0: both
    choose their own) before one judge: ``mean`` over ``n`` neurons, its standard error, and the
    95 % confidence interval from ``low`` to ``high``."""

    first: str
    second: str
    k: int
    judge: str
    mean: float
    se: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Evaluation:
    """Methods compared on a sample of a layer's neurons: ``channels`` i32[M], ``rows`` R of a
    table, per row and neuron ``intra`` and ``inter`` f32[R,M] (NaN where a neuron could not be
    divided) and ``parts`` i32[R,M] (virtual neurons, 0 for none). ``correlated`` says what the
    correlations are averaged over, "subsets" or "neurons". ``missing`` names each judge or method
    that could not be used, with the reason; ``notice`` is "" or a sentence to show; ``seconds``
    are those spent in each stage."""

    layer: str
    channels: np.ndarray
    judges: tuple[EmbedderInfo, ...]
    references: ReferenceQuery
    seed: int
    rows: tuple[EvaluationRow, ...]
    differences: tuple[PairedDifference, ...]
    intra: np.ndarray
    inter: np.ndarray
    parts: np.ndarray
    correlated: str
    missing: tuple[tuple[str, str], ...]
    notice: str
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class TruthRow:
    """A method judged by what is known to be in the pictures: mean adjusted Rand index of its
    division with the truth over ``n`` polysemantic neurons, with its standard error. ``k`` is
    "known" (as many virtual neurons as concepts) or "auto" (the method chooses)."""

    method: str
    k: str
    ari: float
    ari_se: float
    n: int


@dataclass(frozen=True)
class Confusion:
    """How many virtual neurons a method chose, by how many concepts the neuron has: ``concepts``
    i64[R] ascending, ``counts`` i64[R,L], column c for c + 1 virtual neurons. Where the method
    found nothing to divide, the neuron is not counted."""

    method: str
    concepts: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Truth:
    """Methods judged by truth on M neurons of a layer. ``names`` of T concepts; ``drives``
    f32[M,T]: the share of each neuron's references of which the concept is what drives it;
    ``concepts`` i32[M]: how many of them reach ``share``. ``rows`` with ``ari`` f32[R,M] (NaN where
    the neuron has fewer than two, or could not be divided) and ``chosen`` i32[R,M] virtual neurons
    made (0: none). ``missing`` names methods that could not be used, with the reason."""

    layer: str
    channels: np.ndarray
    names: tuple[str, ...]
    drives: np.ndarray
    concepts: np.ndarray
    share: float
    references: ReferenceQuery
    rows: tuple[TruthRow, ...]
    ari: np.ndarray
    chosen: np.ndarray
    confusions: tuple[Confusion, ...]
    missing: tuple[tuple[str, str], ...]
    notice: str
    seconds: float
