"""Pictures as a network sees them; the latest stay in memory for the next neuron."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

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
        if found is None:
            preprocess = self._network().info.preprocess
            found = view(self._images.root, self._images.paths[image], preprocess)
            self._recent.put(image, found, found.nbytes)
        return found

    def inputs(self, index: np.ndarray) -> torch.Tensor:
        """f32[K,3,S,S]: the network's input for these pictures i64[K]."""
        network, images = self._network(), index.tolist()
        kept = {image: self._recent.get(image) for image in images}
        found = {image: pixels for image, pixels in kept.items() if pixels is not None}
        missing = [image for image in kept if image not in found]
        paths = [self._images.paths[image] for image in missing]
        made = decoded(self._images.root, paths, network.info.preprocess)
        for image, pixels in zip(missing, made, strict=True):
            self._recent.put(image, pixels, pixels.nbytes)
            found[image] = pixels
        return to_input(np.stack([found[image] for image in images]), network)


def decoded(root: str, paths: Sequence[str], preprocess: Preprocess) -> list[np.ndarray]:
    """Views u8[S,S,3] of pictures, some at once. Raises BadInput as ``pictures.view`` does."""
    with ThreadPoolExecutor(THREADS, "view") as threads:
        return list(threads.map(lambda path: view(root, path, preprocess), paths))
