"""Baseline: k-means on the activations of the neuron's own layer.

The comparison of PURE (arXiv 2404.06453): each reference is the spatial mean of every rectified
channel of the layer. It says which references look alike to the layer, not which circuit made the
neuron fire.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer.compute import clustering
from explorer.lab import Lab, Report
from explorer.methods.clustered import cluster, k_option, nearest_centroid, root_option, seed_option
from explorer.methods.method import Method
from explorer.records import References, Split


@dataclass(frozen=True)
class Params:
    """Settings of the activation baseline."""

    k: int = k_option()
    root: bool = root_option()
    seed: int = seed_option()


def rows(
    lab: Lab, references: References, params: Params, report: Report
) -> tuple[np.ndarray, str]:
    """f32[K,C]: mean of max(activation, 0) over space, or its root, and the layer's name."""
    layer = references.neuron.layer
    means = np.maximum(lab.activations(layer, references.index, report), 0)
    return clustering.rooted(means) if params.root else means, layer


def split(lab: Lab, references: References, params: Params, report: Report) -> Split:
    """Cluster the references by the layer's activations; centroids lie in the layer."""
    return cluster(METHOD, lab, params, references, *rows(lab, references, params, report))


METHOD = Method(
    name="activations",
    title="Activation k-means",
    citation=(
        "Baseline of M. Dreyer et al.: PURE: Turning Polysemantic Neurons Into Pure Features by "
        "Identifying Relevant Circuits. CVPR Workshops, 2024. arXiv:2404.06453"
    ),
    summary="Clusters references by the activations of all channels of the neuron's own layer.",
    version=1,
    Params=Params,
    rows=rows,
    split=split,
    assign=nearest_centroid,
    clusters=True,
)
