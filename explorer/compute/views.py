"""Pictures as a network sees them; the latest stay in memory for the next neuron."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from explorer.compute.scan import to_input
from explorer.images.pictures import view
from explorer.networks.graph import Network
from explorer.recent import Recent
from explorer.records import ImageSet, Preprocess

KEPT = 192 * 2**20
"""Bytes of pictures that are kept."""
THREADS = min(4, os.cpu_count() or 1)
"""More of them would wait for each other: half of decoding is Python."""


class Views:
    """The pictures of a set, decoded for a network, which is loaded when first needed."""

    def __init__(self, images: ImageSet, network: Callable[[], Network]) -> None:
        self._images = images
        self._network = network
        self._recent: Recent[np.ndarray] = Recent(KEPT)

    def of(self, image: int) -> np.ndarray:
        """u8[S,S,3]. Raises BadInput for a picture that cannot be read."""
        found = self._recent.get(image)
        return self._made(image, self._network().info.preprocess) if found is None else found

    def inputs(self, index: np.ndarray) -> torch.Tensor:
        """f32[K,3,S,S]: the network's input for these pictures i64[K]."""
        network, images = self._network(), index.tolist()
        kept = {image: self._recent.get(image) for image in images}
        found = {image: pixels for image, pixels in kept.items() if pixels is not None}
        missing = [image for image in kept if image not in found]
        with ThreadPoolExecutor(THREADS, "view") as threads:
            make = partial(self._made, preprocess=network.info.preprocess)
            found.update(zip(missing, threads.map(make, missing), strict=True))
        return to_input(np.stack([found[image] for image in images]), network)

    def _made(self, image: int, preprocess: Preprocess) -> np.ndarray:
        made = view(self._images.root, self._images.paths[image], preprocess)
        self._recent.put(image, made, made.nbytes)
        return made
