"""The Lab of one planted channel: to a method it is one more ordinary neuron of its layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from explorer.compute.attribution import relevance
from explorer.compute.device_lab import RELEVANCE_BATCH, DeviceLab
from explorer.compute.plants import weights
from explorer.lab import Report
from explorer.networks.planting import plant as planted
from explorer.records import (
    Directions,
    ImageSet,
    Layer,
    NetworkInfo,
    Neuron,
    Plant,
    ReferenceQuery,
    References,
    Scan,
)


class PlantedLab:
    """A DeviceLab whose ``layer`` has a further channel, the planted one (see Lab).

    Its sources are silenced in the activations that methods see, or they would give the answer
    away. Other networks see whole pictures, ``views`` by embedder f32[N,E], not crops.
    """

    def __init__(
        self, lab: DeviceLab, layer: str, plant: Plant, views: Mapping[str, np.ndarray]
    ) -> None:
        self._lab = lab
        self._plant = plant
        self._views = views
        self._known: dict[tuple[str, str], np.ndarray] = {}
        self._layer = lab.network.layer(layer)
        self.neuron = Neuron(lab.workspace.name, layer, self._layer.channels)
        wider = replace(self._layer, channels=self._layer.channels + 1)
        layers = tuple(wider if each.name == layer else each for each in lab.network.layers)
        self.network: NetworkInfo = replace(lab.network, layers=layers)
        self.images: ImageSet = lab.images

    def scan(self, layer: str, report: Report) -> Scan:
        """The scan of a layer, without the planted channel."""
        return self._lab.scan(layer, report)

    def references(self, neuron: Neuron, query: ReferenceQuery, report: Report) -> References:
        """Those of the planted channel; of any other, the ordinary ones."""
        if neuron != self.neuron:
            return self._lab.references(neuron, query, report)
        plant = self._plant
        return References(neuron, query, plant.index, plant.value, plant.position)

    def directions(self, layer: str, report: Report) -> Directions:
        """The singular directions of the layer as it was."""
        return self._lab.directions(layer, report)

    def relevance(
        self, references: References, lower: Layer, attribution: str, report: Report
    ) -> np.ndarray:
        """f32[K,D], see Lab; relevance starts from the planted channel."""
        if references.neuron != self.neuron:
            return self._lab.relevance(references, lower, attribution, report)
        name = lower.name, attribution
        if name not in self._known:
            self._known[name] = self._pulled(lower, references.index, attribution, report)
        return self._known[name]

    def relevances(
        self, references: Sequence[References], lower: Layer, attribution: str, report: Report
    ) -> None:
        """See Lab; the planted channel is made when it is asked for."""
        others = [each for each in references if each.neuron != self.neuron]
        self._lab.relevances(others, lower, attribution, report)

    def activations(self, layer: str, index: np.ndarray, report: Report) -> np.ndarray:
        """f32[K,C], see Lab; of the planted channel's layer f32[K,C+1], its sources zero."""
        found = self._lab.activations(layer, index, report)
        if layer != self._layer.name:
            return found
        found[:, list(self._plant.sum.sources)] = 0.0
        means = dict(zip(self._plant.index.tolist(), self._plant.mean.tolist(), strict=True))
        own = np.array([means[int(image)] for image in index], np.float32)
        return np.concatenate([found, own[:, None]], axis=1)

    def embed_references(
        self, references: References, embedder: str, report: Report
    ) -> tuple[np.ndarray, str]:
        """f32[K,E] of whole pictures, and the embedder used."""
        spec = embedder or next(iter(self._views))
        return self._views[spec][references.index], spec

    def _pulled(
        self, lower: Layer, index: np.ndarray, attribution: str, report: Report
    ) -> np.ndarray:
        """f32[K,D]: relevance from the planted channel, in batches."""
        lab, made = self._lab, self._plant.sum
        added = weights([made], self._layer.channels, lab.model.device)
        piece = lab.model.slice(lower.name, self._layer.name)
        piece = planted(piece, added, made.join == "after")
        parts = []
        with lab.clock.stage("relevance"):
            for start in range(0, len(index), RELEVANCE_BATCH):
                report(start / len(index), "")
                some = index[start : start + RELEVANCE_BATCH]
                inputs, rows = lab.maps.of(lab.model, piece, some), torch.arange(len(some))
                found = relevance(piece, inputs, torch.zeros_like(rows), rows, attribution)
                parts.append(found.float().cpu().numpy())
        return np.concatenate(parts)
