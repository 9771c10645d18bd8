"""PURE: virtual neurons from circuits (Dreyer et al. 2024, arXiv 2404.06453).

The relevance of a lower layer's channels for the neuron, one vector per reference image, is
L1-normalised and clustered by k-means: images that reach the neuron through different channels
below belong to different virtual neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from explorer.compute import clustering
from explorer.lab import Lab, Report
from explorer.methods.clustered import cluster, k_option, nearest_centroid, root_option, seed_option
from explorer.methods.method import Method
from explorer.methods.params import option
from explorer.records import BadInput, Layer, References, Split


@dataclass(frozen=True)
class Params:
    """Settings of PURE."""

    k: int = k_option()
    attribution: str = option(
        "gradient",
        "Attribution",
        "gradient: times activation, as in the released code; lrp: epsilon-plus, as in the paper; "
        "raising: gradient x activation only where it raises the neuron; sensitivity: the "
        "gradient alone",
        choices=("gradient", "lrp", "raising", "sensitivity"),
    )
    root: bool = root_option()
    lower: str = option(
        "",
        "Lower layer",
        "Whose channels make the circuit; empty: the previous rectified, channel-mixing layer",
    )
    seed: int = seed_option()


def split(lab: Lab, references: References, params: Params, report: Report) -> Split:
    """Cluster the references by normalised relevance; centroids lie in the lower layer."""
    values, space = rows(lab, references, params, report)
    report(0.9, "Clustering")
    return cluster(METHOD, lab, replace(params, lower=space), references, values, space)


def rows(
    lab: Lab, references: References, params: Params, report: Report
) -> tuple[np.ndarray, str]:
    """f32[K,D]: relevance over its L1 norm, or the signed roots of that, and the lower layer."""
    layer = lab.network.layer(references.neuron.layer)
    lower = _lower(lab, layer, params.lower)
    relevance = lab.relevance(references, lower, params.attribution, report)
    shares = clustering.normalise(relevance)
    return clustering.rooted(shares) if params.root else shares, lower.name


def prepare(lab: Lab, references: Sequence[References], params: Params, report: Report) -> None:
    """The relevance of many neurons of one layer, each picture worked on once."""
    for first in references[:1]:
        layer = lab.network.layer(first.neuron.layer)
        lab.relevances(references, _lower(lab, layer, params.lower), params.attribution, report)


def _lower(lab: Lab, layer: Layer, wanted: str) -> Layer:
    name = wanted or layer.lower
    if not name:
        raise BadInput(
            f"Layer {layer.name} has no earlier layer that mixes channels: choose a later layer."
        )
    if name not in layer.lowers:
        lab.network.layer(name)
        raise BadInput(
            f"{name} cannot explain {layer.name}: choose an earlier layer that reaches it through "
            f"mixed channels, such as {', '.join(layer.lowers[:3])}."
        )
    return lab.network.layer(name)


METHOD = Method(
    name="pure",
    title="PURE (circuits)",
    citation=(
        "M. Dreyer, E. Purelku, J. Vielhaben, W. Samek, S. Lapuschkin: PURE: Turning Polysemantic "
        "Neurons Into Pure Features by Identifying Relevant Circuits. CVPR Workshops, 2024. "
        "arXiv:2404.06453"
    ),
    summary="Clusters references by which channels of a lower layer made the neuron fire.",
    version=1,
    Params=Params,
    rows=rows,
    split=split,
    assign=nearest_centroid,
    prepare=prepare,
    clusters=True,
)
