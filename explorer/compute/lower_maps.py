"""What slices take of pictures: each runs up to the lower layer once, as far as there is room."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from explorer.networks.graph import Network
from explorer.networks.slices import Slice
from explorer.recent import Recent

KEPT = 256 * 2**20
"""Bytes of lower maps that stay in memory for the next neuron."""


class LowerMaps:
    """Lower maps, and what else enters a slice, of the pictures that ``decoded`` gives as inputs
    f32[B,3,S,S] of a network."""

    def __init__(self, decoded: Callable[[np.ndarray], Tensor]) -> None:
        self._decoded = decoded
        self._recent: Recent[tuple[Tensor, ...]] = Recent(KEPT)

    def of(self, network: Network, piece: Slice, index: np.ndarray) -> tuple[Tensor, ...]:
        """The inputs of a slice for these pictures i64[B], all with B first."""
        names = {int(image): (piece.lower, piece.upper, int(image)) for image in index}
        held = {image: self._recent.get(name) for image, name in names.items()}
        missing = [image for image, found in held.items() if found is None]
        if missing:
            made = network.inputs(self._decoded(np.array(missing)), piece)
            for row, image in enumerate(missing):
                own = tuple(each[row : row + 1].clone() for each in made)
                self._recent.put(names[image], own, sum(each.nbytes for each in own))
                held[image] = own
        rows = [held[int(image)] or () for image in index]
        return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
