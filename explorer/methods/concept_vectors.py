"""Concept vectors: unit directions in a layer's activation space (arXiv 2304.09707).

The spatial means of all channels of the neuron's layer, one row per reference, are clustered
(Ward) down to a chosen separation; k-means with as many groups refines the clusters, rows far
from their centre and groups of few are dropped, and each remaining mean, over its length, is a
concept vector. Any picture's response is its own row times that vector. Instead of a neuron, a
singular direction of the layer can be the start: its references project on it most.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from explorer.compute import clustering, plane
from explorer.lab import Lab, Report
from explorer.methods.clustered import origin, seed_option
from explorer.methods.method import Method
from explorer.methods.params import option
from explorer.records import Neuron, NoCluster, ReferenceQuery, References, Split

PAPER_DISTANCE = 15.0
"""The paper's Ward distance, and the squared distance beyond which it drops an outlier."""


@dataclass(frozen=True)
class Params:
    """Settings of concept vectors."""

    start: str = option(
        "neuron",
        "Start",
        "neuron: the pictures that make the channel fire; singular: those that project most on the "
        "layer's singular direction with the channel's number, 0 being the strongest",
        choices=("neuron", "singular"),
    )
    mode: str = option(
        "scaled",
        "Thresholds",
        "scaled: in units of the references' median distance, alike on every layer; paper: the "
        "published absolute 15 and 15 squared, with references ranked by mean",
        choices=("scaled", "paper"),
    )
    separation: float = option(
        0.34,
        "Separation",
        "How far apart clusters must be (scaled mode): 1 keeps two halves apart whose centres "
        "differ by the median distance of two references; smaller gives finer concepts",
        minimum=0.02,
        maximum=3.0,
        step=0.02,
    )
    radius: float = option(
        1.0,
        "Radius",
        "References farther from their centre than this many median distances are outliers "
        "(scaled mode)",
        minimum=0.1,
        maximum=5.0,
        step=0.1,
    )
    smallest: int = option(
        5, "Smallest concept", "Clusters with fewer references are dropped", minimum=1, maximum=100
    )
    centred: bool = option(
        False,
        "Centred",
        "Subtract the references' mean first, which all vectors of the paper share",
    )
    seed: int = seed_option()


def rows(
    lab: Lab, references: References, params: Params, report: Report
) -> tuple[np.ndarray, str]:
    """f32[K,C]: spatial means of all channels of the neuron's layer (its own rectification)."""
    layer = references.neuron.layer
    found = lab.activations(layer, references.index, report)
    return found - found.mean(axis=0) if params.centred else found, layer


def query(asked: ReferenceQuery, params: Params) -> ReferenceQuery:
    """The references that are divided: ranked by mean in the paper, by projection on a singular
    direction where that is the start."""
    if params.start == "singular":
        return replace(asked, by="singular")
    return replace(asked, by="mean") if params.mode == "paper" else asked


def split(lab: Lab, references: References, params: Params, report: Report) -> Split:
    """Cluster, prune and normalise; ``centroid`` holds the unit vectors. References that belong
    to no concept have a zero column. ``provenance`` gains Ward's ``tree`` and the height of its
    ``cut``, and the cosines of the vectors with each other (``between``) and with the ``axis``
    they start from. Raises NoCluster when no concept is left."""
    values, space = rows(lab, references, params, report)
    if len(values) < max(2, params.smallest):
        raise NoCluster(
            f"Concepts of {params.smallest} references need as many, and there are {len(values)}: "
            "choose a smaller concept or a neuron that fires more often."
        )
    report(0.5, "Clustering")
    tree, cut, radius = _tree(values, params)
    labels = _concepts(values, tree, cut, radius, params)
    vectors = _unit(np.stack([values[labels == v].mean(axis=0) for v in range(labels.max() + 1)]))
    strength = (labels[None] == np.arange(len(vectors))[:, None]).astype(np.float32)
    return Split(
        neuron=references.neuron,
        method=METHOD.name,
        version=METHOD.version,
        params=asdict(params),
        seed=params.seed,
        references=references,
        strength=strength,
        centroid=vectors,
        space=space,
        map=plane.principal_plane(values),
        scores=_scores(values, labels),
        provenance={
            **origin(lab),
            "tree": tree.tolist(),
            "cut": cut,
            "between": (vectors @ vectors.T).tolist(),
            "axis": _along_axis(lab, references.neuron, vectors, params, report).tolist(),
        },
    )


def assign(rows: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The vector that each row projects on most, and the second projection over the first."""
    response = np.sort(rows @ split.centroid.T, axis=1)
    labels = (rows @ split.centroid.T).argmax(axis=1)
    if split.k < 2:
        return labels, np.full(len(rows), np.nan, np.float32)
    ratio = response[:, -2] / np.where(response[:, -1] > 0, response[:, -1], np.nan)
    return labels, ratio.astype(np.float32)


def _tree(rows: np.ndarray, params: Params) -> tuple[np.ndarray, float, float]:
    """Ward's linkage f64[K-1,4], the height of the cut and the radius of outliers, in the units
    of ``rows``."""
    from scipy.cluster.hierarchy import linkage

    tree = np.asarray(linkage(np.asarray(rows, np.float64), "ward"))
    if params.mode == "paper":
        return tree, PAPER_DISTANCE, float(np.sqrt(PAPER_DISTANCE))
    apart = clustering.distances(rows)
    median = float(np.median(apart[np.triu_indices(len(rows), 1)]))
    if median == 0:
        raise NoCluster("The references are all alike to this layer: choose another neuron.")
    # Ward joins two halves of K rows at sqrt(K / 2) times the distance of their centres.
    height = params.separation * median * np.sqrt(len(rows) / 2)
    return tree, float(height), params.radius * median


def _concepts(
    rows: np.ndarray, tree: np.ndarray, cut: float, radius: float, params: Params
) -> np.ndarray:
    """Labels i64[K], largest concept first, -1 for references that belong to none."""
    from scipy.cluster.hierarchy import fcluster

    count = int(fcluster(tree, cut, "distance").max())
    labels, centres, _ = clustering.kmeans(rows, count, params.seed, restarts=5)
    far = np.linalg.norm(rows - centres[labels], axis=1) >= radius
    labels = np.where(far, -1, labels)
    sizes = np.bincount(labels[labels >= 0], minlength=len(centres))
    labels = np.where(np.isin(labels, np.flatnonzero(sizes >= params.smallest)), labels, -1)
    if (labels < 0).all():
        raise NoCluster(
            f"No concept of {params.smallest} references is left of {count} clusters: raise the "
            "separation or the radius, or allow smaller concepts."
        )
    return clustering.by_size(labels)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _scores(rows: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    found = {"outliers": float((labels < 0).mean())}
    if labels.max() > 0:
        found["silhouette"] = clustering.silhouette(rows, labels)
    return found


def _along_axis(
    lab: Lab, neuron: Neuron, vectors: np.ndarray, params: Params, report: Report
) -> np.ndarray:
    """f32[V]: cosines of the vectors with the direction that the concepts start from."""
    if params.start == "singular":
        direction = lab.directions(neuron.layer, report).vectors[neuron.channel]
        return np.asarray(vectors @ direction)
    return np.asarray(vectors[:, neuron.channel])


METHOD = Method(
    name="concept_vectors",
    title="Concept vectors",
    citation=(
        "L. O'Mahony, V. Andrearczyk, H. Muller, M. Graziani: Disentangling Neuron "
        "Representations with Concept Vectors. CVPR Workshops, 2023. arXiv:2304.09707"
    ),
    summary="Directions in the layer's activation space, one per cluster of references, with a "
    "chosen separation; outliers are left out.",
    version=1,
    Params=Params,
    rows=rows,
    split=split,
    assign=assign,
    query=query,
)
