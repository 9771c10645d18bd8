"""Baseline: k-means on the embeddings of the reference crops by another network.

With the embedder that also judges, this is the upper bound of PURE's comparison (CLIP there);
with another one, such as ``network:...``, it plays the role of DINOv2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from explorer.lab import Lab, Report
from explorer.methods.clustered import cluster, k_option, nearest_centroid, seed_option
from explorer.methods.method import Method
from explorer.methods.params import option
from explorer.records import References, Split


@dataclass(frozen=True)
class Params:
    """Settings of the embedding baseline."""

    k: int = k_option()
    embedder: str = option(
        "", "Embedder", "open_clip:..., conse or network:...; empty: the workspace's own"
    )
    seed: int = seed_option()


def rows(
    lab: Lab, references: References, params: Params, report: Report
) -> tuple[np.ndarray, str]:
    """f32[K,E]: embeddings of the crops, and the embedder used."""
    return lab.embed_references(references, params.embedder, report)


def split(lab: Lab, references: References, params: Params, report: Report) -> Split:
    """Cluster the references by how another network sees their crops."""
    values, used = rows(lab, references, params, report)
    return cluster(METHOD, lab, replace(params, embedder=used), references, values, used)


METHOD = Method(
    name="embedding",
    title="Embedding k-means",
    citation=(
        "Upper bound and DINOv2 baseline of M. Dreyer et al.: PURE: Turning Polysemantic Neurons "
        "Into Pure Features by Identifying Relevant Circuits. CVPR Workshops, 2024. "
        "arXiv:2404.06453"
    ),
    summary="Clusters references by how another network sees their crops; judges that share that "
    "network favour it.",
    version=1,
    Params=Params,
    rows=rows,
    split=split,
    assign=nearest_centroid,
    clusters=True,
)
