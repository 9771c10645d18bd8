"""What surgery works on: a network as its library makes it, before any edit."""

from __future__ import annotations

from dataclasses import replace

import torch

from explorer.networks import edit_list, identity, surgery
from explorer.networks.makers import Makers
from explorer.networks.modules import channels_last
from explorer.networks.surgery import Weighted
from explorer.networks.weights import digest
from explorer.networks.zoo import Loaded
from explorer.records import Edit, Layer, Maker


class Original:
    """A network before any edit, on its device, with the edits that its workspace carries."""

    def __init__(self, loaded: Loaded, layers: tuple[Layer, ...], device: torch.device) -> None:
        self.network, self.weights = loaded.source, loaded.weights
        self.edits: tuple[Edit, ...] = ()
        model = loaded.model.requires_grad_(False)
        if identity.is_edits(loaded.weights):
            listed = edit_list.read(identity.edits_file(loaded.weights))
            self.weights, self.edits = listed.weights, listed.edits
            model = surgery.restore(model)
        self.base = digest(model)
        self.model = channels_last(model.to(device))
        self.shown = {layer.name for layer in layers}
        self.makers = Makers(self.model, layers)

    def maker(self, layer: str) -> Maker:
        """What makes a layer's channels; see ``Makers.maker``."""
        path = layer.removesuffix(".split")
        found = self.makers.maker(path if path in {e.layer for e in self.edits} else layer)
        shown = layer if layer in self.shown and not found.refusal else found.shown
        return replace(found, layer=layer, shown=shown)

    def layer(self, path: str) -> Weighted:
        return surgery.weighted(self.model, path)
