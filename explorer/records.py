"""The vocabulary: frozen records that every room of the house speaks, and the error hierarchy.

Shapes use N images, C channels of a layer, D channels of its lower layer, K reference images,
V virtual neurons and E embedding dimensions. Arrays are NumPy and are never written to after a
record is made. This module imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SCHEMA = 1
"""Version of the stored form of these records. It is part of every key: raise it on any change."""


# Errors. Each message is one sentence that says what happened and what to do about it.


class ExplorerError(Exception):
    """The root of every error that a person is meant to read."""


class BadInput(ExplorerError):
    """Something the person gave (a name, a file, a parameter) cannot be used. Exit code 2."""


class DeadNeuron(BadInput):
    """The channel fires on no image of the set, so it has no references to split or explain."""


class NoCluster(BadInput):
    """No virtual neuron comes of it: there are too few references, they are alike, or the settings
    drop every group."""


class MissingRule(BadInput):
    """A module has no relevance rule; the message names it and offers gradient x activation."""


class Unavailable(ExplorerError):
    """Something outside (a hub, a package, a device, disk space) cannot be had. Exit code 2."""


class OutOfMemory(Unavailable):
    """The device has too little memory even for the smallest batch."""


class Cancelled(ExplorerError):
    """The person withdrew the question before it was answered."""


# What is looked at.


@dataclass(frozen=True)
class Workspace:
    """A network, its weights, a set of images and an embedder, under one name.

    ``layers`` lists the layers scanned ahead; empty means the explorer's own choice.
    """

    name: str
    network: str
    weights: str
    images: str
    embedder: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Neuron:
    """One channel of one layer. Its ``address``, ``layer:channel``, is the URL and CLI form."""

    workspace: str
    layer: str
    channel: int

    @property
    def address(self) -> str:
        return f"{self.layer}:{self.channel}"

    @classmethod
    def parse(cls, workspace: str, address: str) -> Neuron:
        """Read ``layer:channel``; raise BadInput when it is not of that form."""
        layer, colon, channel = address.rpartition(":")
        if not colon or not layer or not (channel.isascii() and channel.isdigit()):
            raise BadInput(
                f"'{address}' is not a neuron: write LAYER:CHANNEL, such as blocks.5.3.bn2:74."
            )
        if len(channel) > 9:
            raise BadInput(f"'{address}' is not a neuron: no layer has that many channels.")
        return cls(workspace, layer, int(channel))


@dataclass(frozen=True)
class Layer:
    """A browsable layer: a tensor of the traced network that has channels.

    ``rectified`` layers follow an activation function that is zero below zero (ReLU and its
    kin); their channels are ranked on the rectified value before any ceiling (ReLU6).
    ``ceiling`` is that upper clip, if there is one. ``lowers`` are the layers that a split may
    attribute to, nearest first: earlier, and reached through at least one operation that mixes
    channels. ``lower`` is the default among them: the nearest that is rectified ("" if none).
    """

    name: str
    channels: int
    height: int
    width: int
    rectified: bool
    ceiling: float | None
    lowers: tuple[str, ...]
    lower: str


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input: short side to ``resize``, centre ``crop``
    (both in pixels), divided by 255, minus ``mean``, over ``std`` (per RGB channel)."""

    resize: int
    crop: int
    interpolation: str  # "bilinear" | "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class NetworkInfo:
    """What a person needs to know of a loaded network. ``notice`` is "" or one sentence to show
    (random weights, say). ``digest`` is that of the weights as loaded. ``classes`` are names of
    its outputs, () where unknown. ``default_layer`` is where browsing starts."""

    source: str
    weights: str
    digest: str
    parameters: int
    layers: tuple[Layer, ...]
    default_layer: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    notice: str

    def layer(self, name: str) -> Layer:
        """The layer of that name; BadInput, naming near ones, when there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        import difflib

        near = difflib.get_close_matches(name, [layer.name for layer in self.layers], 3, 0.3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise BadInput(f"There is no layer '{name}' in {self.source}{hint or '.'}")


@dataclass(frozen=True)
class ImageSet:
    """The pictures of a workspace, in order of their relative path (the image id is the index).

    ``digest`` depends on paths and contents, not on where the folder lies. ``labels`` i32[N]
    index ``label_names`` (-1: none). ``sources`` i32[N]: pictures with one number show the same
    photograph, and a gallery takes at most one of them. ``credits`` is shown wherever the
    pictures are.
    """

    name: str
    root: str
    digest: str
    paths: tuple[str, ...]
    labels: np.ndarray
    label_names: tuple[str, ...]
    sources: np.ndarray
    credits: str

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, image: int) -> str:
        """The name of an image's label, "" when it has none."""
        number = int(self.labels[image])
        return self.label_names[number] if number >= 0 else ""


# What is measured.


@dataclass(frozen=True)
class Scan:
    """One layer over all images, channel-major, so that one neuron is one contiguous read.

    ``maximum`` f16[C,N]: spatial maximum of the rectified, unclipped value (the raw value where
    the layer is not rectified); ``mean`` f16[C,N]: spatial mean of the same; ``position``
    u16 or u32[C,N]: flat argmax in the layer's height x width. ``valid`` bool[N] is false for
    pictures that could not be read, listed in ``skipped`` as (relative path, reason).
    """

    layer: str
    maximum: np.ndarray
    mean: np.ndarray
    position: np.ndarray
    valid: np.ndarray
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ScanReport:
    """What a scan did. ``seconds`` counts this run only; ``images`` all that are stored."""

    images: int
    skipped: tuple[tuple[str, str], ...]
    layers: tuple[str, ...]
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class ReferenceQuery:
    """Which images stand for a neuron.

    ``by`` is "max" or "mean" (spatial), or "singular": by projection on that singular direction of
    the layer whose number is the neuron's channel. ``range`` is "top" (the highest), "quantiles"
    (from evenly spaced quantiles of the positive values, highest first) or "random" (``seed``,
    over all images). At most ``count``, at most one per source photograph.
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


# What is measured of many neurons.


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


# What is changed in the weights.


@dataclass(frozen=True)
class Edit:
    """One channel divided in the weights of the convolution or linear layer at module path
    ``layer``. ``owner`` i32[I] gives each input unit (an input channel at one kernel offset) the
    number of its concept, -1 where the concepts share it. ``concepts`` are their names, ``rho`` and
    ``rule`` how the owners were found. ``channel`` counts as in the layer before any edit;
    numbers from its channels on are new ones, in the order in which edits made them."""

    layer: str
    channel: int
    concepts: tuple[str, ...]
    rule: str
    rho: float
    owner: np.ndarray


@dataclass(frozen=True)
class Maker:
    """What makes the channels of a layer: ``path`` is the module path of the convolution or linear
    layer whose rows can be divided, ``kind`` its description, ``channels`` how many it makes, each
    from ``inputs`` input units, ``shown`` the browsable layer that shows them ("" if none). Where
    the layer cannot be divided ``refusal`` says why, and ``path`` and ``shown`` are those of the
    layer to divide instead ("" if none)."""

    layer: str
    path: str
    kind: str
    channels: int
    inputs: int
    shown: str
    refusal: str


@dataclass(frozen=True)
class ClassRelevance:
    """How a layer of C channels and I input units serves K labels: ``count`` i32[K] pictures read,
    ``important`` f32[K,C] share of them for which the channel carries at least ``tau`` of the
    positive relevance, ``means`` f32[K,G,I/G] mean of the spatial sums of the inputs of each of its
    G groups. ``how`` is "closed form" or "sliced backward"."""

    layer: str
    tau: float
    count: np.ndarray
    important: np.ndarray
    means: np.ndarray
    how: str
    seconds: float


@dataclass(frozen=True)
class Candidates:
    """Channels that serve unlike things, most unlike first: ``channel`` i32[M], the two ``groups``
    i32[M,2] as numbers of ``names`` and the ``cosine`` f32[M] of their relevance vectors. ``by`` is
    "classes" or "splits" (then ``names`` are letters of virtual neurons); ``looked`` counts the
    channels that could be judged; ``how`` and ``seconds`` say what it took."""

    maker: Maker
    by: str
    names: tuple[str, ...]
    channel: np.ndarray
    groups: np.ndarray
    cosine: np.ndarray
    looked: int
    how: str
    seconds: float


@dataclass(frozen=True)
class Incision:
    """One edit, judged on pictures that were not used to choose it. n concepts, rows d_1 ... d_n
    and the residual; the original channel is row 0 where R = n + 1.

    ``chosen`` i32[n] and ``judged`` i32[n] pictures per concept; ``rhos`` f32[G] tried with their
    ``criterion`` f32[G] (NaN: leaves a concept without inputs). ``fractions`` f32[n,n+1]: on the
    pictures of each concept, spatial sums of d_1 ... d_n and the residual over those of the channel
    (ideal: one at its own, zero elsewhere), from the ``fired`` i32[n] pictures on which the
    channel's sum is above zero; NaN where there are none. ``shares`` f32[n,n]: positive part of
    each d over that of all, with standard errors ``share_errors``. ``auc`` f32[R]:
    how well the positive part of row i tells concept i from the others (row 0: the best that the
    channel itself can), 0.5 is chance. ``correct`` f32: share of pictures whose own d is the
    strongest. ``density`` i64[n,R,B]: pictures per concept and row whose mean positive part lies
    between ``edges`` f32[B+1]. ``top`` i32[R,T] highest pictures of all ``ranked`` (-1 pads),
    ``value`` f32[R,T], their most frequent ``label`` i32[R] (-1: none) and its ``purity`` f32[R].
    ``places`` i32[n+1] are the channels of ``shown`` that hold d_1 ... d_n and the residual."""

    edit: Edit
    chosen: np.ndarray
    judged: np.ndarray
    rhos: np.ndarray
    criterion: np.ndarray
    fractions: np.ndarray
    fired: np.ndarray
    shares: np.ndarray
    share_errors: np.ndarray
    auc: np.ndarray
    correct: float
    density: np.ndarray
    edges: np.ndarray
    top: np.ndarray
    value: np.ndarray
    label: np.ndarray
    purity: np.ndarray
    ranked: int
    places: np.ndarray
    shown: str


@dataclass(frozen=True)
class SurgeryReport:
    """Edits applied in order, and the edited network against the original on ``pictures`` real
    pictures: largest absolute logit ``difference`` in float32 and in float64, beside the largest
    logit ``scale``; how many pictures have another first class in float32 (``changed``);
    ``accuracy`` f32[2,2]: before and after; first and first five classes right (NaN where the
    network does not know the labels). ``parameters`` and ``multiplications`` i64[2]: before and
    after."""

    incisions: tuple[Incision, ...]
    pictures: int
    difference: float
    difference64: float
    scale: float
    changed: int
    accuracy: np.ndarray
    parameters: np.ndarray
    multiplications: np.ndarray
    seconds: float


@dataclass(frozen=True)
class EditedNetwork:
    """An edited network as files: ``weights`` u8[n] is a safetensors file, ``edits`` the JSON text
    that goes beside it."""

    edits: str
    weights: np.ndarray


# What a signal means.


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
    ``virtual`` (-1: the whole neuron) of a split by ``method``. ``considered`` concepts were
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
class Ablation:
    """How much of a neuron's effect on the network's answers its explanation keeps when that
    takes its place, on ``n`` test pictures: ``score`` 1 is all, 0 no more than the neuron's mean
    does. ``test`` is the explanation's correlation. ``notice`` is "" or a sentence to show."""

    neuron: Neuron
    score: float
    test: Simulation
    n: int
    notice: str = ""


@dataclass(frozen=True)
class SplitTestRow:
    """Test correlations over ``n`` neurons divided by a method: of the ``whole`` neuron's
    explanation, of the summed explanations of its virtual neurons (``parts``), and their paired
    ``difference`` (parts - whole), with standard errors."""

    method: str
    whole: float
    whole_se: float
    parts: float
    parts_se: float
    difference: float
    difference_se: float
    k: float
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


@dataclass(frozen=True)
class FigureFile:
    """A drawn figure: file ``name``, ``media`` type and its bytes as u8[n]."""

    name: str
    media: str
    data: np.ndarray


# What is under way.


@dataclass(frozen=True)
class Status:
    """A question on its way. ``state`` is waiting, running, done, failed or cancelled;
    ``fraction`` 0 to 1; ``place`` in the queue (0 = running); ``eta`` seconds or None;
    ``title`` says what it computes. ``fault``: it failed by a fault of ours, not of the input."""

    key: str
    state: str
    title: str
    fraction: float = 0.0
    message: str = ""
    place: int = 0
    eta: float | None = None
    fault: bool = False
