"""Networks and embedders kept loaded; the least recently used leaves first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from explorer.compute.device import choose_device
from explorer.compute.embedding import Embedder, open_embedder
from explorer.networks.graph import Network
from explorer.networks.original import Original
from explorer.networks.zoo import load
from explorer.records import PRECISIONS, Layer

KEPT = 4


class Shelf:
    """What the worker has loaded on its device. Only the worker's thread touches it."""

    def __init__(self, device: str) -> None:
        self.device = choose_device(device)
        self._kept: OrderedDict[tuple[str, ...], Any] = OrderedDict()

    def network(self, network: str, weights: str, precision: str = PRECISIONS[0]) -> Network:
        """The traced network, loaded if it is not on the shelf, in one of PRECISIONS."""

        def make() -> Network:
            return Network.build(load(network, weights), self.device, precision)

        found: Network = self._keep(("network", network, weights, precision), make)
        return found

    def original(self, network: str, weights: str, layers: tuple[Layer, ...]) -> Original:
        """The network before any edit, as its library makes it."""

        def make() -> Original:
            return Original(load(network, weights), layers, self.device)

        found: Original = self._keep(("original", network, weights), make)
        return found

    def embedder(self, spec: str) -> Embedder:
        """The embedder named by ``spec``; Unavailable when its weights cannot be had."""
        found: Embedder = self._keep(("embedder", spec), lambda: open_embedder(spec, self.device))
        return found

    def _keep(self, name: tuple[str, ...], make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        self._kept.move_to_end(name)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[name]
