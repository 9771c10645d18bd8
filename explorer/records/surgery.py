"""What is changed in the weights, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from explorer.records.answers import Alignment


@dataclass(frozen=True)
class Edit:
    """One channel divided in the weights of the convolution or linear layer at module path
    ``layer``. ``owner`` i32[I] gives each input unit (an input channel at one kernel offset) the
    number of its concept, -1 where the concepts share it. ``parts`` f32[n,I] are the rows
    d_1 ... d_n where the rule divides the numbers themselves (then ``owner`` says which part holds
    most), and empty where it divides the units. ``concepts`` are their names, ``rho`` and ``rule``
    how all this was found. ``channel`` counts as in the layer before any edit; numbers from its
    channels on are new ones, in the order in which edits made them."""

    layer: str
    channel: int
    concepts: tuple[str, ...]
    rule: str
    rho: float
    owner: np.ndarray
    parts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))


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
    G groups, ``best`` i32[K,C,P] the label's pictures for which the channel is most relevant (-1
    pads). ``how`` is "closed form" or "sliced backward"."""

    layer: str
    tau: float
    count: np.ndarray
    important: np.ndarray
    means: np.ndarray
    best: np.ndarray
    how: str
    seconds: float


@dataclass(frozen=True)
class Candidates:
    """Channels that serve unlike things, most unlike first: ``channel`` i32[M], the two ``groups``
    i32[M,2] as numbers of ``names`` and the ``cosine`` f32[M] of their relevance vectors. ``by`` is
    "classes" or "splits" (then ``names`` are letters of virtual neurons); ``looked`` counts the
    channels that could be judged; ``pictures`` i32[M,2,P] are those of each group that show it best
    (-1 pads): by classes where the channel is most relevant, by splits the highest references;
    ``advice`` says in a sentence what to loosen where nothing was found, else ""; ``how`` and
    ``seconds`` say what it took."""

    maker: Maker
    by: str
    names: tuple[str, ...]
    channel: np.ndarray
    groups: np.ndarray
    cosine: np.ndarray
    pictures: np.ndarray
    looked: int
    advice: str
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
    strongest. ``misplaced`` f32: squared deviation of the parts from what each should give (the
    channel's output on its own pictures, nothing on the others) where the channel fires, over the
    squared output of the channel; 0 is ideal, (n-1)/n^2 what equal parts w / n have.
    ``density`` i64[n,R,B]: pictures per concept and row whose mean positive part lies between
    ``edges`` f32[B+1]. ``top`` i32[R,T] highest pictures of all ``ranked`` (-1 pads), ``value``
    f32[R,T], ``peaks`` f32[R,T,n] the highest of each part there, their most frequent ``label``
    i32[R] (-1: none) and its ``purity`` f32[R], beside ``purity_null``, that of as many pictures
    drawn by lot.
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
    misplaced: float
    density: np.ndarray
    edges: np.ndarray
    top: np.ndarray
    value: np.ndarray
    peaks: np.ndarray
    label: np.ndarray
    purity: np.ndarray
    purity_null: float
    ranked: int
    places: np.ndarray
    shown: str


@dataclass(frozen=True)
class PartResponses:
    """What a channel (column 0) and the n parts that it was divided into give on all N pictures:
    ``mean`` f32[N,n+1] over places of the positive part, and ``peak`` f32[N,n+1] the highest
    place; 0 on pictures that could not be read, where ``known`` bool[N] is false. ``names`` n."""

    names: tuple[str, ...]
    mean: np.ndarray
    peak: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class PartsAlignment:
    """Do the new channels look at things more alike? ``before``: mean distance between the
    ``pictures`` on which the channel is highest, by an embedder of whole pictures. ``after``:
    the alignment of the parts' own highest pictures, each group one part's (a picture of several
    goes to the part that is highest there); its rows are what the parts make of each."""

    before: float
    pictures: int
    after: Alignment


@dataclass(frozen=True)
class SurgeryReport:
    """Edits applied in order (``alignments``: of each, before and after), and the edited network
    against the original on ``pictures`` real pictures: largest absolute logit ``difference`` in
    float32 and in float64, beside the largest logit ``scale``; how many pictures have another
    first class in float32 (``changed``); ``accuracy`` f32[2,2]: before and after; first and first
    five classes right (NaN where the network does not know the labels). ``parameters`` and
    ``multiplications`` i64[2]: before and after."""

    incisions: tuple[Incision, ...]
    alignments: tuple[PartsAlignment, ...]
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
