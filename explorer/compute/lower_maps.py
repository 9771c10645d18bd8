"""What slices take of pictures: each runs up to the lower layer once, as far as there is room.

The latest stay in memory, and on disk as they are: half precision would fit twice as many, and
change relevance in the fourth digit by whether a picture happened to be kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from explorer.networks.graph import Network
from explorer.networks.slices import Slice
from explorer.recent import Recent
from explorer.records import BadInput, Unavailable
from explorer.store import Store

LOG = logging.getLogger(__name__)

KEPT = 256 * 2**20
"""Bytes that stay in memory for the next neuron."""
DISK_GB = 4.0
"""Gigabytes that stay on disk; the least recently used go."""
AHEAD, AT_ONCE = 2000, 8
"""Pictures whose maps are made before anybody asks, at most, and how many in a moment."""
WORTH = 2.0
"""Maps go to disk if making them takes so many times as long as reading them back."""

Entering = tuple[Tensor, ...]


class LowerMaps:
    """Lower maps, and what else enters a slice, of the pictures that ``decoded`` gives as inputs
    f32[B,3,S,S] of a network. ``store`` is for these alone; ``about`` names network and pictures.
    """

    def __init__(self, decoded: Callable[[np.ndarray], Tensor], store: Store, about: str) -> None:
        self._decoded = decoded
        self._store = store
        self._about = about
        self._recent: Recent[Entering] = Recent(KEPT)
        self._worth: dict[str, bool] = {}
        self._looked = ("", "")
        self._ahead: Iterator[None] = iter(())

    def of(
        self, network: Network, piece: Slice, index: np.ndarray, among: int = 1
    ) -> tuple[Tensor, ...]:
        """The inputs of a slice for these pictures i64[B], all with B first. ``among`` is the
        number of pictures whose maps may be asked for again (0: these may not): they go to disk
        only where it has room for all, as the latest would push out the first."""
        kind = self._kind(piece)
        held = {int(image): self._held(f"{kind}:{image}", network) for image in index}
        missing = [image for image, found in held.items() if found is None]
        if missing:
            start = time.monotonic()
            made = network.inputs(self._decoded(np.array(missing)), piece)
            seconds = (time.monotonic() - start) / len(missing)
            for row, image in enumerate(missing):
                own = tuple(each[row : row + 1].clone() for each in made)
                held[image] = own
                self._remember(f"{kind}:{image}", own)
                fits = among * sum(each.nbytes for each in own) <= DISK_GB * 2**30
                if among and fits and self._worth.get(kind, True):
                    self._worth[kind] = self._stored(f"{kind}:{image}", own, kind, seconds)
        rows = [held[int(image)] or () for image in index]
        return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))

    def look_ahead(self, network: Network, between: tuple[str, str], top: np.ndarray) -> None:
        """Have ``get_ready`` make maps for a pair of layers, lower and upper: of the pictures that
        neurons are highest on (``top`` i[C,T], -1 for none), those of most neurons first."""
        if between == self._looked:
            return
        self._looked = between
        pictures, neurons = np.unique(top[top >= 0], return_counts=True)
        first = pictures[np.argsort(-neurons, kind="stable")][:AHEAD]
        self._ahead = self._making(network, network.slice(*between), first)

    def get_ready(self) -> bool:
        """Make a few of them; whether there are more."""
        return next(self._ahead, self) is None

    def _making(self, network: Network, piece: Slice, pictures: np.ndarray) -> Iterator[None]:
        kind = self._kind(piece)
        missing = [each for each in pictures if f"{kind}:{each}" not in self._store]
        for start in range(0, len(missing), AT_ONCE):
            if not self._worth.get(kind, True):
                return
            with suppress(BadInput):  # who asks for a picture that cannot be read will hear of it
                self.of(network, piece, np.array(missing[start : start + AT_ONCE]))
            yield

    def _kind(self, piece: Slice) -> str:
        return f"{self._about}:{piece.lower}:{piece.upper}"

    def _held(self, name: str, network: Network) -> Entering | None:
        found = self._recent.get(name)
        if found is None and (data := self._store.get_bytes(name)) is not None:
            found = unpacked(data, network.device)
            self._remember(name, found)
        return found

    def _remember(self, name: str, maps: Entering) -> None:
        self._recent.put(name, maps, sum(each.nbytes for each in maps))

    def _stored(self, name: str, maps: Entering, kind: str, seconds: float) -> bool:
        """Store maps that took so many seconds to make. Answers whether others of the kind should
        be: not if reading them back is no quicker, or the disk has no room."""
        try:
            self._store.put_bytes(name, packed(maps))
        except Unavailable as error:
            LOG.warning("Lower maps are not kept: %s", error)
            return False
        if kind in self._worth:
            return True
        start = time.monotonic()
        self._store.get_bytes(name)
        return seconds > WORTH * (time.monotonic() - start)


def packed(maps: Entering) -> bytes:
    """Maps as safetensors, each in the order that it has in memory."""
    tensors = {}
    for number, each in enumerate(maps):
        order = sorted(range(each.dim()), key=each.stride, reverse=True)
        name = f"{number}:{','.join(map(str, order))}"
        tensors[name] = each.permute(order).contiguous().cpu()
    return save(tensors)


def unpacked(data: bytes, device: torch.device) -> Entering:
    """The maps that ``packed`` gave, on a device."""
    found: dict[int, Tensor] = {}
    for name, each in load(data).items():
        number, order = name.split(":")
        back = np.argsort([int(axis) for axis in order.split(",")]).tolist()
        found[int(number)] = each.to(device).permute(back)
    return tuple(found[number] for number in sorted(found))
