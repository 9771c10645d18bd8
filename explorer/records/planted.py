"""Neurons planted to be polysemantic in a known way, and how well methods divide them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from explorer.records.answers import ReferenceQuery

REGIMES = ("far", "near")
JOINS = ("after", "before")
HALVES = ("development", "report")
"""Every second channel of a kind belongs to one: choose by the first, report the other."""
CLEAN = "clean"
"""Stands for a regime: sources left as they were."""
CEILING, CHANCE = "ceiling", "random"
"""Stand for methods: k-means on the sources themselves, which no method may see; labels by lot."""


@dataclass(frozen=True)
class Planting:
    """A comparison of ``methods`` on channels planted in a layer: ``pairs`` of each of ``regimes``
    and number of source channels (``groups``), at each of ``mixes``, joined "before" or "after"
    they are rectified. ``lowers`` are tried for every method that has a lower layer ("": the
    default one). ``judge`` is the embedder that says how far apart sources are ("": the
    workspace's own); ``half`` is "all" or one of HALVES."""

    layer: str
    pairs: int = 100
    methods: tuple[str, ...] = ("pure", "pure:attribution=lrp", "activations", "embedding")
    lowers: tuple[str, ...] = ("",)
    regimes: tuple[str, ...] = REGIMES
    groups: tuple[int, ...] = (2,)
    mixes: tuple[float, ...] = (1.0,)
    join: str = JOINS[0]
    judge: str = ""
    references: ReferenceQuery = field(default_factory=ReferenceQuery)
    seed: int = 0
    half: str = "all"


@dataclass(frozen=True)
class Sum:
    """A channel to plant: the sum of G ``sources`` (channels of one layer) times ``weights``,
    joined "after" each is rectified (and not clipped) or "before", which makes it one more row of
    the layer's own weights. ``distance`` is the mean one between sources, ``regime`` "far",
    "near" or "clean" (one source, untouched), ``mix`` the weight of every source but the first,
    relative to it, after each has been brought to the same scale."""

    sources: tuple[int, ...]
    weights: tuple[float, ...]
    regime: str
    mix: float
    distance: float
    join: str = "after"


@dataclass(frozen=True)
class Plant:
    """A planted channel with its K references, strongest first: ``index`` i64[K], ``value`` f32[K]
    (spatial maximum), ``position`` i64[K] (its flat place), ``mean`` f32[K] over space, ``truth``
    i64[K], which source gives most at that place, and ``share`` f32[K], how much of the value."""

    sum: Sum
    index: np.ndarray
    value: np.ndarray
    position: np.ndarray
    mean: np.ndarray
    truth: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Plants:
    """All planted channels of a study, and how many of each regime and number of groups, such as
    "far, 2 sources", could have been planted."""

    plants: tuple[Plant, ...]
    possible: Mapping[str, int]


@dataclass(frozen=True)
class Divided:
    """How a method divided one planted channel: adjusted Rand index with the truth at the known
    number of groups (``known``) and at the method's own choice (``auto``), and that choice
    (``chosen``, 0: it could not be divided). NaN where the method has no such k."""

    known: float
    auto: float
    chosen: int


@dataclass(frozen=True)
class PlantedRow:
    """A method on the planted channels of one kind: mean adjusted Rand index with standard error
    over ``n`` neurons, at the known k and (``auto``) at the k that the method chooses, with the
    share of neurons for which that is right. ``lower`` is "" where the method has none."""

    method: str
    lower: str
    regime: str
    groups: int
    mix: float
    ari: float
    ari_se: float
    n: int
    auto_ari: float
    auto_ari_se: float
    auto_n: int
    auto_right: float


@dataclass(frozen=True)
class Chosen:
    """How often a method chose each k from 1 on, ``counts``, for neurons of ``groups`` sources."""

    method: str
    lower: str
    regime: str
    groups: int
    mix: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Planted:
    """Methods compared on planted channels of a layer. ``sums`` are those planted, ``known`` and
    ``auto`` f32[R,M] the adjusted Rand index of each row's method on each of them (NaN where it
    is not of the row's kind). The embedder ``judge`` measured how far apart sources are; ``half``
    says which of them count. ``seconds`` are those spent in each stage."""

    layer: str
    references: ReferenceQuery
    seed: int
    half: str
    join: str
    judge: str
    rows: tuple[PlantedRow, ...]
    confusion: tuple[Chosen, ...]
    sums: tuple[Sum, ...]
    known: np.ndarray
    auto: np.ndarray
    possible: Mapping[str, int]
    seconds: Mapping[str, float]
