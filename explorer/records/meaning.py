"""What a signal means: concepts, explanations, where in its range it matters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer.records.subjects import Neuron


@dataclass(frozen=True)
class Simulation:
    """Pearson correlation of a prediction with a signal on ``n`` pictures that the fit never saw,
    with its 95 % confidence interval (Fisher's z) from ``low`` to ``high``."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ConceptSet:
    """Concepts ready to explain with: ``names`` M of those that fire, of ``given`` ones. ``mode``
    is "labels" or "list"; ``source`` says where kinds larger than classes come from ("" if
    nowhere). Responses of a list are sigmoid(``scale`` (cosine + ``offset``)), ``fitted`` to
    labels or a default. ``pictures``: how many train, validate and test."""

    mode: str
    names: tuple[str, ...]
    given: int
    source: str
    embedder: str
    scale: float
    offset: float
    fitted: bool
    pictures: tuple[int, int, int]


@dataclass(frozen=True)
class Explanation:
    """A signal as ``bias`` plus a weighted sum of concepts, ``terms`` in order of choice.

    The signal is a neuron's (``pool``: spatial "mean" or "max"), or that of virtual neuron
    ``virtual`` (-1: the whole neuron) of a split by ``method``, where that is "surgery" of the
    ``part`` of that number and name ("" otherwise) that the weights are divided into (-1: of the
    undivided channel as its own layer computes it). ``considered`` concepts were
    searched (0: the terms were given). ``validation`` is a correlation, ``test`` one on pictures
    never seen, where responses come from ``simulator`` if that is not "". ``null`` and
    ``null_sd``: the same after fits to shuffled signals. ``frequent`` and ``single``: the most
    frequent concept, and the best on the validation pictures, each alone, with their test
    correlations. ``pictures``: how many train, validate, test; ``left_out``: how many more the
    signal is not known on. ``index`` i64[n], ``actual`` and ``predicted`` f32[n] are the test
    pictures'. ``notice`` is "" or a sentence to show."""

    neuron: Neuron
    pool: str
    method: str
    virtual: int
    part: str
    terms: tuple[tuple[str, float], ...]
    bias: float
    mode: str
    considered: int
    embedder: str
    simulator: str
    validation: float
    test: Simulation
    null: float
    null_sd: float
    frequent: tuple[str, float]
    single: tuple[str, float]
    pictures: tuple[int, int, int]
    left_out: int
    index: np.ndarray
    actual: np.ndarray
    predicted: np.ndarray
    notice: str = ""


@dataclass(frozen=True)
class LayerExplanations:
    """Explanations of S neurons of a layer: ``terms`` of each, and f32[S] test correlations of
    the explanation (``test``), of fits to shuffled signals (``null``), of the most ``frequent``
    concept and of the best ``single`` one (named in ``singles``). Dead neurons are left out."""

    layer: str
    pool: str
    channels: np.ndarray
    terms: tuple[tuple[tuple[str, float], ...], ...]
    bias: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    null: np.ndarray
    frequent: np.ndarray
    single: np.ndarray
    singles: tuple[str, ...]
    concepts: ConceptSet
    simulator: str
    dead: int
    seconds: float
    notice: str = ""


@dataclass(frozen=True)
class RangeAnalysis:
    """Where in its range a neuron matters. B equal steps of its activation, lowest first:
    ``edges`` f32[B+1], ``counts`` i64[B] pictures, ``share`` f32[B] of the summed effect of
    setting the channel to zero (NaN where that was not measured), ``examples`` i64[B,T] pictures
    (-1 pads), ``concepts``: per step those that respond more than over all pictures, with how
    much more. ``top`` f32[Q]: the share of the effect that the highest ``quantiles`` f32[Q] of all
    pictures have. ``measured`` pictures stand for all that fire."""

    neuron: Neuron
    pool: str
    edges: np.ndarray
    counts: np.ndarray
    share: np.ndarray
    examples: np.ndarray
    concepts: tuple[tuple[tuple[str, float], ...], ...]
    quantiles: np.ndarray
    top: np.ndarray
    measured: int
    notice: str = ""


@dataclass(frozen=True)
class RangeShares:
    """Where in their ranges S neurons of a layer matter, over the same ``measured`` pictures.
    ``top`` f32[S,Q]: the share of a neuron's effect that its highest ``quantiles`` f32[Q] of these
    pictures have (NaN: less than one picture); chance is the quantile itself. ``share`` f32[S,B]
    and ``pictures`` f32[S,B]: the shares of effect and of pictures in B equal steps of each
    neuron's range, lowest first. NaN where nothing has an effect; ``dead`` neurons are left out."""

    layer: str
    pool: str
    channels: np.ndarray
    quantiles: np.ndarray
    top: np.ndarray
    share: np.ndarray
    pictures: np.ndarray
    measured: int
    dead: int
    seconds: float


@dataclass(frozen=True)
class Ablation:
    """How much of a neuron's effect on the network's answers its explanation keeps when that
    takes its place, on ``n`` test pictures: 1 is all, 0 no more than the neuron's mean does.
    ``norm`` and ``optim`` differ in how the prediction is scaled; ``constant`` is what a constant
    chosen as in ``optim`` keeps, its null. ``test`` is the explanation's correlation.
    ``notice`` is "" or a sentence to show."""

    neuron: Neuron
    norm: float
    optim: float
    constant: float
    test: Simulation
    n: int
    notice: str = ""


@dataclass(frozen=True)
class SplitTestRow:
    """Test correlations over ``n`` neurons divided by a method: of the ``whole`` neuron's
    explanation, of the summed explanations of its virtual neurons (``parts``), and their paired
    ``difference`` (parts - whole), with standard errors. ``k`` parts and ``tested`` test pictures
    on average."""

    method: str
    whole: float
    whole_se: float
    parts: float
    parts_se: float
    difference: float
    difference_se: float
    k: float
    tested: float
    n: int


@dataclass(frozen=True)
class SplitTest:
    """Does splitting make a layer easier to explain? Every neuron is explained with the same
    number of terms whole and in parts. ``whole`` and ``parts`` f32[R,M] (NaN: not divided)."""

    layer: str
    channels: np.ndarray
    rows: tuple[SplitTestRow, ...]
    whole: np.ndarray
    parts: np.ndarray
    length: int
    pictures: int
    concepts: ConceptSet
    seconds: float
    notice: str = ""
