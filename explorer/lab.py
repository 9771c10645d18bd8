"""What a method may ask of the network, the images and the device. Methods see only this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from explorer.records import (
    Directions,
    ImageSet,
    Layer,
    NetworkInfo,
    Neuron,
    ReferenceQuery,
    References,
    Scan,
)

Report = Callable[[float, str], None]
"""Tell how far a job is (0 to 1) and what it does; raises Cancelled when it is to stop."""


class Lab(Protocol):
    """One workspace, ready to be asked. K images are named by their ids, ``index`` i64[K]."""

    @property
    def network(self) -> NetworkInfo: ...

    @property
    def images(self) -> ImageSet: ...

    def scan(self, layer: str, report: Report) -> Scan:
        """The scan of a layer; made first if it is not stored."""

    def references(self, neuron: Neuron, query: ReferenceQuery, report: Report) -> References:
        """The images that stand for a neuron. Raises DeadNeuron where there are none."""

    def directions(self, layer: str, report: Report) -> Directions:
        """The singular directions of a layer's spatial means over all scanned images."""

    def relevance(
        self, references: References, lower: Layer, attribution: str, report: Report
    ) -> np.ndarray:
        """f32[K,D]: signed relevance of the lower layer's channels for the neuron in each
        reference, summed over space, not normalised. ``attribution`` is "gradient",
        "raising", "sensitivity" or "lrp"."""

    def relevances(
        self, references: Sequence[References], lower: Layer, attribution: str, report: Report
    ) -> None:
        """Compute ``relevance`` for neurons of one layer together, for when it is asked: a picture
        that several of them cite is worked on once. Goes on where it was interrupted."""

    def activations(self, layer: str, index: np.ndarray, report: Report) -> np.ndarray:
        """f32[K,C]: spatial means of all channels of a layer in those pictures, read from the
        scan (rectified where the layer is)."""

    def embed_references(
        self, references: References, embedder: str, report: Report
    ) -> tuple[np.ndarray, str]:
        """f32[K,E]: embeddings of the references, each cropped to where the neuron looks, and
        the embedder used: ``embedder``, or the workspace's own where that is ""."""
