"""What a method may ask of the network, the images and the device. Methods see only this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from explorer.records import (
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

    def relevance(
        self, references: References, lower: Layer, attribution: str, report: Report
    ) -> np.ndarray:
        """f32[K,D]: signed relevance of the lower layer's channels for the neuron in each
        reference, summed over space, not normalised. ``attribution`` is "gradient" or "lrp"."""

    def embed(
        self, embedder: str, index: np.ndarray, boxes: np.ndarray, report: Report
    ) -> np.ndarray:
        """f32[K,E]: embeddings of the boxes (i32[K,4] pixels) of the pictures, not normalised."""

    def embed_texts(self, embedder: str, texts: Sequence[str]) -> np.ndarray:
        """f32[T,E]: embeddings of texts in the space of ``embed``."""
