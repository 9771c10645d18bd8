"""What slices take of pictures, and what relevance on its way down asks of them: made once for each
picture, whatever neurons cite it, as far as there is room.

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

from explorer.compute import attribution
from explorer.compute.propagation import Known
from explorer.networks.graph import Network
from explorer.networks.slices import Slice
from explorer.recent import Recent
from explorer.records import BadInput, Unavailable
from explorer.store import Store

LOG = logging.getLogger(__name__)

KEPT = 640 * 2**20
"""Bytes that stay in memory for the next neuron: 100 pictures from layer3 of ResNet50 take 500."""
DISK_GB = 4.0
"""Gigabytes that stay on disk; the least recently used go."""
AHEAD, AT_ONCE = 2000, 8
"""Of how many pictures all is made before anybody asks, at most, and of how many in a moment."""
WORTH = 2.0
"""What takes so many times as long to make as to read back goes to disk."""
FORM = 1
"""Raised when what convolutions give would be another for the same slice: it is stored by name."""

Maps = dict[str, Tensor]
"""Of a picture or several, by name, with their number first."""


class LowerMaps:
    """Lower maps, and what else enters a slice, of the pictures that ``decoded`` gives as inputs
    f32[B,3,S,S] of a network; and what is known of these pictures when relevance comes down.
    ``store`` is for these alone; ``about`` names network and pictures.
    """

    def __init__(self, decoded: Callable[[np.ndarray], Tensor], store: Store, about: str) -> None:
        self._decoded = decoded
        self._store = store
        self._about = about
        self._recent: Recent[Maps] = Recent(KEPT)
        self._worth: dict[str, bool] = {}
        self._size: dict[str, int] = {}  # of a picture, by kind
        self._looked = ("", "", "")
        self._ahead: Iterator[None] = iter(())

    def of(
        self, network: Network, piece: Slice, index: np.ndarray, among: int = 1
    ) -> tuple[Tensor, ...]:
        """The inputs of a slice for these pictures i64[B], all with B first. ``among`` is the
        number of pictures whose maps may be asked for again (0: these may not): they go to disk
        only where it has room for all, as the latest would push out the first."""

        def make(rows: list[int]) -> Maps:
            made = network.inputs(self._decoded(index[rows]), piece)
            return {str(number): each for number, each in enumerate(made)}

        found = self._all(self._kind(piece), index, make, network.device, among)
        return tuple(found[str(number)] for number in range(len(found)))

    def known(
        self,
        network: Network,
        piece: Slice,
        rule: str,
        index: np.ndarray,
        inputs: tuple[Tensor, ...],
        among: int,
        to_disk: bool = False,
    ) -> Known:
        """What ``attribution.known`` gives for these pictures i64[B], whose inputs are at hand:
        of ``among`` pictures it stays in memory, where that has room for all."""
        kind = self._known_kind(piece, rule)
        own = sum(each[0].nbytes for each in inputs)
        if among * (own + self._size.get(kind, 0)) > KEPT:
            return {}

        def make(rows: list[int]) -> Maps:
            some = inputs if len(rows) == len(index) else tuple(each[rows] for each in inputs)
            return dict(attribution.known(piece, some, rule))

        return self._all(kind, index, make, network.device, among if to_disk else 0)

    def look_ahead(
        self, network: Network, between: tuple[str, str], rule: str, top: np.ndarray
    ) -> None:
        """Have ``get_ready`` make all that a question takes for a pair of layers, lower and upper:
        of the pictures that neurons are highest on (``top`` i[C,T], -1 for none), those of most
        neurons first."""
        if (*between, rule) == self._looked:
            return
        self._looked = (*between, rule)
        pictures, neurons = np.unique(top[top >= 0], return_counts=True)
        first = pictures[np.argsort(-neurons, kind="stable")][:AHEAD]
        if len(first):
            self._ahead = self._making(network, network.slice(*between), rule, first)

    def get_ready(self) -> bool:
        """Make a few of them; whether there are more."""
        return next(self._ahead, self) is None

    def _making(
        self, network: Network, piece: Slice, rule: str, pictures: np.ndarray
    ) -> Iterator[None]:
        maps, known = self._kind(piece), self._known_kind(piece, rule)
        for some in self._missing(maps, pictures):
            with suppress(BadInput):  # who asks for a picture that cannot be read will hear of it
                self.of(network, piece, some)
            yield
        with suppress(BadInput):
            self._know(network, piece, rule, pictures[:1])
        if not (size := self._size.get(known, 0)):
            return
        room = DISK_GB * 2**30 - len(pictures) * self._size[maps]
        for some in self._missing(known, pictures[: int(max(0, room) // size)]):
            with suppress(BadInput):
                self._know(network, piece, rule, some)
            yield

    def _know(self, network: Network, piece: Slice, rule: str, pictures: np.ndarray) -> None:
        inputs = self.of(network, piece, pictures)
        self.known(network, piece, rule, pictures, inputs, 1, to_disk=True)

    def _missing(self, kind: str, pictures: np.ndarray) -> Iterator[np.ndarray]:
        """A few at a time, the pictures of which nothing of a kind is on disk, if it should be."""
        missing = [each for each in pictures if f"{kind}:{each}" not in self._store]
        for start in range(0, len(missing), AT_ONCE):
            if not self._worth.get(kind, True):
                return
            yield np.array(missing[start : start + AT_ONCE])

    def _kind(self, piece: Slice) -> str:
        return f"{self._about}:{piece.lower}:{piece.upper}"

    def _known_kind(self, piece: Slice, rule: str) -> str:
        family = "lrp" if rule == "lrp" else "gradient"
        return f"{self._kind(piece)}:{family}:{FORM}"

    def _all(
        self,
        kind: str,
        index: np.ndarray,
        make: Callable[[list[int]], Maps],
        device: torch.device,
        among: int,
    ) -> Maps:
        """What is kept of these pictures, of a kind; what is missing is made, of rows of ``index``,
        and goes to disk if that has room for those of ``among`` pictures."""
        held: dict[int, Maps] = {}
        missing: dict[int, int] = {}
        for row, image in enumerate(index.tolist()):
            if image not in held and image not in missing:
                found = self._held(kind, image, device)
                if found is None:
                    missing[image] = row
                else:
                    held[image] = found
        if missing:
            start = time.monotonic()
            made = make(list(missing.values()))
            seconds = (time.monotonic() - start) / len(missing)
            for row, image in enumerate(missing):
                own = {name: each[row : row + 1].clone() for name, each in made.items()}
                held[image] = own
                self._remember(kind, image, own)
                fits = among * self._size[kind] <= DISK_GB * 2**30
                if among and fits and self._worth.get(kind, True):
                    self._worth[kind] = self._stored(f"{kind}:{image}", own, kind, seconds)
            if len(missing) == len(index):
                return made
        rows = [held[image] for image in index.tolist()]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _held(self, kind: str, image: int, device: torch.device) -> Maps | None:
        name = f"{kind}:{image}"
        found = self._recent.get(name)
        if found is None and (data := self._store.get_bytes(name)) is not None:
            found = unpacked(data, device)
            self._remember(kind, image, found)
        return found

    def _remember(self, kind: str, image: int, maps: Maps) -> None:
        self._size[kind] = sum(each.nbytes for each in maps.values())
        self._recent.put(f"{kind}:{image}", maps, self._size[kind])

    def _stored(self, name: str, maps: Maps, kind: str, seconds: float) -> bool:
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


def packed(maps: Maps) -> bytes:
    """Maps as safetensors, each in the order that it has in memory."""
    tensors = {}
    for name, each in maps.items():
        order = sorted(range(each.dim()), key=each.stride, reverse=True)
        laid = each.permute(order).contiguous().cpu()
        tensors[f"{name}:{','.join(map(str, order))}"] = laid
    return save(tensors)


def unpacked(data: bytes, device: torch.device) -> Maps:
    """The maps that ``packed`` gave, on a device."""
    found = {}
    for about, each in load(data).items():
        name, order = about.split(":")
        back = np.argsort([int(axis) for axis in order.split(",")]).tolist()
        found[name] = each.to(device).permute(back)
    return found
