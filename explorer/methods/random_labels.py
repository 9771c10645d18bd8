"""Baseline: virtual neurons drawn by lot, as even in size as they can be. What chance scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from explorer.compute import clustering, plane
from explorer.lab import Lab, Report
from explorer.methods.clustered import LARGEST_K, nearest_centroid, origin, seed_option
from explorer.methods.method import Method
from explorer.methods.params import option
from explorer.records import NoCluster, References, Split


@dataclass(frozen=True)
class Params:
    """Settings of the random baseline."""

    k: int = option(2, "Virtual neurons", "How many to draw", minimum=1, maximum=LARGEST_K)
    seed: int = seed_option()


def rows(
    lab: Lab, references: References, params: Params, report: Report
) -> tuple[np.ndarray, str]:
    """f32[K,V]: one-hot labels drawn by lot for this neuron and seed."""
    count = len(references.index)
    if params.k > count:
        raise NoCluster(
            f"{params.k} virtual neurons need as many references, and there are {count}: "
            "choose a smaller k."
        )
    generator = np.random.default_rng([params.seed, references.neuron.channel])
    labels = clustering.by_size(generator.permutation(np.arange(count) % params.k))
    return np.eye(params.k, dtype=np.float32)[labels], "random labels"


def split(lab: Lab, references: References, params: Params, report: Report) -> Split:
    """Divide the references by lot."""
    drawn, space = rows(lab, references, params, report)
    labels = drawn.argmax(axis=1)
    return Split(
        neuron=references.neuron,
        method=METHOD.name,
        version=METHOD.version,
        params=asdict(params),
        seed=params.seed,
        references=references,
        strength=drawn.T.copy(),
        centroid=np.eye(params.k, dtype=np.float32),
        space=space,
        map=plane.principal_plane(drawn),
        scores={"silhouette": clustering.silhouette(drawn, labels)} if params.k > 1 else {},
        provenance=origin(lab),
    )


METHOD = Method(
    name="random",
    title="Random labels",
    citation="Null baseline of this explorer: labels drawn by lot.",
    summary="Divides references by lot: what chance scores.",
    version=1,
    Params=Params,
    rows=rows,
    split=split,
    assign=nearest_centroid,
)
