"""Pictures as a network sees them; the latest stay in memory for the next neuron."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from explorer.compute.scan import to_input
from explorer.images.pictures import view
from explorer.networks.graph import Network
from explorer.recent import Recent
from explorer.records import ImageSet

KEPT = 192 * 2**20
"""Bytes of pictures that are kept."""


class Views:
    """The pictures of a set, decoded for a network, which is loaded when first needed."""

    def __init__(self, images: ImageSet, network: Callable[[], Network]) -> None:
        self._images = images
        self._network = network
        self._recent: Recent[np.ndarray] = Recent(KEPT)

    def of(self, image: int) -> np.ndarray:
        """u8[S,S,3]. Raises BadInput for a picture that cannot be read."""
        found = self._recent.get(image)
        if found is None:
            preprocess = self._network().info.preprocess
            found = view(self._images.root, self._images.paths[image], preprocess)
            self._recent.put(image, found, found.nbytes)
        return found

    def inputs(self, index: np.ndarray) -> torch.Tensor:
        """f32[K,3,S,S]: the network's input for these pictures i64[K]."""
        return to_input(np.stack([self.of(int(image)) for image in index]), self._network())
