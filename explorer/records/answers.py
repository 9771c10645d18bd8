"""What is measured of one layer or neuron, and what comes back of a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explorer.records.subjects import Neuron


@dataclass(frozen=True)
class ReferenceQuery:
    """Which images stand for a neuron.

    ``by`` is "max" or "mean" (spatial), or "singular": by projection on that singular direction of
    the layer whose number is the neuron's channel. ``range`` is "top" (the highest), "quantiles"
    (from evenly spaced quantiles of the positive values, highest first) or "random" (``seed``,
    over all images): at most ``count``, at most one per source photograph. Or else it is "given"
    with a digest of the ids of pictures that were chosen in another way.
    """

    by: str = "max"
    range: str = "top"
    count: int = 100
    seed: int = 0


@dataclass(frozen=True)
class References:
    """The reference images of a neuron: ``index`` i64[K], ``value`` f32[K] descending,
    ``position`` i64[K] the flat argmax of each in the layer's map."""

    neuron: Neuron
    query: ReferenceQuery
    index: np.ndarray
    value: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Crops:
    """Where a neuron looks in its references. ``box`` i32[K,4]: left, top, right, bottom in
    pixels of the network's view (exclusive end). ``heat`` u8[K,S,S]: relevance magnitude,
    blurred, 255 = strongest, reduced to S pixels a side. ``degenerate`` bool[K]: no usable map,
    the box is the whole picture. ``rule`` says how the relevance was found."""

    neuron: Neuron
    query: ReferenceQuery
    index: np.ndarray
    box: np.ndarray
    heat: np.ndarray
    degenerate: np.ndarray
    rule: str


@dataclass(frozen=True)
class Split:
    """A neuron divided into V virtual neurons over its K references; one shape for all methods.

    ``strength`` f32[V,K] >= 0: one-hot for clusterings (a zero column is an outlier), rectified
    activation for weight surgery, weighted concept response for explanations. ``centroid``
    f32[V,D]: centre or direction of each, in the space named by ``space`` (a layer).
    ``map`` f32[K,2]: the first two principal components of the rows that were divided.
    ``scores`` holds numbers such as silhouette and stability; ``provenance`` holds versions and
    digests. V is ordered by size, largest first.
    """

    neuron: Neuron
    method: str
    version: int
    params: Mapping[str, Any]
    seed: int
    references: References
    strength: np.ndarray
    centroid: np.ndarray
    space: str
    map: np.ndarray
    scores: Mapping[str, float]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def k(self) -> int:
        """How many virtual neurons there are."""
        return int(self.strength.shape[0])

    @property
    def labels(self) -> np.ndarray:
        """i64[K]: the strongest virtual neuron of each reference, -1 for an outlier."""
        return np.where(self.strength.max(axis=0) > 0, self.strength.argmax(axis=0), -1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """References per virtual neuron."""
        return tuple(int((self.labels == v).sum()) for v in range(self.k))


@dataclass(frozen=True)
class Projection:
    """``map`` f32[K,2]: the rows of a split on a plane, by ``algorithm`` ("umap")."""

    map: np.ndarray
    algorithm: str


@dataclass(frozen=True)
class Score:
    """A number with what is needed to judge it: ``null`` is its mean under random labels of the
    same sizes (or shuffled references), ``null_sd`` their standard deviation, ``n`` what was
    averaged. NaN means not defined (k = 1, say)."""

    value: float
    null: float
    null_sd: float
    n: int


@dataclass(frozen=True)
class Alignment:
    """How well a split agrees with an embedder: mean distances within (``intra``, lower is
    better) and between (``inter``, higher) virtual neurons, their ``gap`` (higher), ``overall``,
    and the Pearson ``correlation`` (higher) of the pairwise distances of the method's rows with
    the embedder's. ``notice`` is "" or says that a stand-in was used."""

    embedder: str
    title: str
    notice: str
    intra: Score
    inter: Score
    gap: Score
    overall: float
    correlation: Score


@dataclass(frozen=True)
class Distances:
    """Pairs of a split's references (outliers left out): how far apart their rows are for the
    ``method`` and for the ``judge``, f32[P] each, and whether they share a virtual neuron
    (``same`` bool[P])."""

    method: np.ndarray
    judge: np.ndarray
    same: np.ndarray


@dataclass(frozen=True)
class EmbedderInfo:
    """An embedder as found on this machine: ``requested`` by the workspace, ``used`` in fact,
    ``title`` to show, ``notice`` ("" or why a stand-in is used), ``texts``: it embeds text too."""

    requested: str
    used: str
    title: str
    notice: str
    texts: bool


@dataclass(frozen=True)
class LayerTable:
    """One row per channel: ``maximum`` and ``mean`` f32[C] over images (of the spatial maximum
    and mean), ``density`` f32[C] the share of images on which it fires, ``alive`` bool[C],
    ``top`` i32[C,T] its highest images (-1 pads), ``label`` i32[C] the most frequent label of
    its top references (-1: none), ``purity`` f32[C] that label's share of them."""

    layer: str
    maximum: np.ndarray
    mean: np.ndarray
    density: np.ndarray
    alive: np.ndarray
    top: np.ndarray
    label: np.ndarray
    purity: np.ndarray


@dataclass(frozen=True)
class Search:
    """A layer ranked by text: ``score`` f32[C], cosine of the text with the mean embedding of
    each channel's top references, NaN where dead. Higher is closer."""

    layer: str
    text: str
    embedder: str
    notice: str
    score: np.ndarray


@dataclass(frozen=True)
class Rows:
    """``values`` f32[K,D]: one row per reference (relevance or embedding), named by ``space``."""

    values: np.ndarray
    space: str


@dataclass(frozen=True)
class Assignment:
    """Pictures assigned to the virtual neurons of a split: ``index`` i64[K], ``label`` i64[K]
    (-1: the neuron does not fire), ``ratio`` f32[K] distance to the nearest centroid over that
    to the second nearest (0: certain, 1: undecided; NaN with one virtual neuron)."""

    index: np.ndarray
    label: np.ndarray
    ratio: np.ndarray


@dataclass(frozen=True)
class Directions:
    """The right singular vectors of a layer's spatial means over all images, not centred:
    ``vectors`` f32[C,C], one per row, strongest first, and ``values`` f32[C] their singular
    values. The entry of largest magnitude of each vector is positive."""

    layer: str
    vectors: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Ranking:
    """All scanned images ranked along a direction of a layer: ``index`` i64[n] the highest, one
    per source photograph, with their projections ``value`` f32[n]; ``mean`` and ``sd`` of the
    projections of all ``images``."""

    index: np.ndarray
    value: np.ndarray
    images: int
    mean: float
    sd: float


@dataclass(frozen=True)
class Histogram:
    """A channel's values over the images: ``counts`` i64[B] between ``edges`` f32[B+1], and
    ``zero``, how many images are at or below zero (not in ``counts``) where rectified."""

    counts: np.ndarray
    edges: np.ndarray
    zero: int


@dataclass(frozen=True)
class FigureFile:
    """A drawn figure: file ``name``, ``media`` type and its bytes as u8[n]."""

    name: str
    media: str
    data: np.ndarray


@dataclass(frozen=True)
class Status:
    """A question on its way. ``state`` is waiting, running, done, failed or cancelled;
    ``fraction`` 0 to 1; ``place`` in the queue (0 = running); ``eta`` seconds or None;
    ``title`` says what it computes. ``fault``: it failed by a fault of ours, not of the input.
    ``ahead``: nobody waits for it yet."""

    key: str
    state: str
    title: str
    fraction: float = 0.0
    message: str = ""
    place: int = 0
    eta: float | None = None
    fault: bool = False
    ahead: bool = False
