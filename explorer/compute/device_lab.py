"""The Lab on a device: answers what methods ask, keeping whatever another question may reuse."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from explorer import browse
from explorer.arrays import ScanArrays
from explorer.compute import attribution
from explorer.compute.batching import in_batches
from explorer.compute.crops import boxes_and_heat
from explorer.compute.embedding import resolve
from explorer.compute.scan import scan, to_input
from explorer.compute.shelf import Shelf
from explorer.embedders import identity as identity_of_embedder
from explorer.images.pictures import view
from explorer.keys import Identity, Question, digest, key
from explorer.lab import Report
from explorer.networks.graph import Network
from explorer.records import (
    Crops,
    ImageSet,
    Layer,
    MissingRule,
    NetworkInfo,
    Neuron,
    ReferenceQuery,
    References,
    Rows,
    Scan,
    Workspace,
)
from explorer.store import Store

RELEVANCE_BATCH = 25
HEAT_BATCH = 10
EMBED_BATCH = 25
VIEWS_KEPT = 512

T = TypeVar("T")


class DeviceLab:
    """One workspace ready to be asked (see ``explorer.lab.Lab``). One thread only."""

    def __init__(
        self,
        workspace: Workspace,
        identity: Identity,
        images: ImageSet,
        shelf: Shelf,
        store: Store,
        cache: Path,
    ) -> None:
        self.workspace = workspace
        self.images = images
        self.identity = identity
        self._shelf = shelf
        self._store = store
        self._arrays = ScanArrays(cache / "scans" / identity.scans)
        self._views: OrderedDict[int, np.ndarray] = OrderedDict()

    @property
    def model(self) -> Network:
        """The network itself, loaded on first use."""
        return self._shelf.network(self.workspace.network, self.workspace.weights)

    @property
    def network(self) -> NetworkInfo:
        return self.model.info

    def scan_layers(self, layers: Sequence[str], report: Report) -> int:
        """Scan what is missing of the layers; the number of pictures passed over now."""
        missing = [self.network.layer(name) for name in layers if self._arrays.progress(name) < 1]
        if not missing:
            return 0
        with self._arrays.writer(missing, len(self.images)) as writer:
            start = writer.start
            scan(self.model, self.images, writer, report)
        return len(self.images) - start

    def scan(self, layer: str, report: Report) -> Scan:
        """The scan of a layer; made first if it is not stored."""
        found = self._arrays.read(layer)
        if found is None:
            self.scan_layers([layer], report)
            found = self._arrays.read(layer)
        assert found is not None, "a finished scan can be read"
        return found

    def references(self, neuron: Neuron, query: ReferenceQuery, report: Report) -> References:
        """The images that stand for a neuron. Raises DeadNeuron where there are none."""
        browse.check_channel(neuron, self.network.layer(neuron.layer))
        return browse.references(self.scan(neuron.layer, report), self.images, neuron, query)

    def relevance(
        self, references: References, lower: Layer, rule: str, report: Report
    ) -> np.ndarray:
        """f32[K,D], see Lab. Only the sub-network between the layers is differentiated."""
        neuron = references.neuron
        args = {"references": asdict(references.query), "lower": lower.name, "rule": rule}

        def make() -> Rows:
            piece = self.model.slice(lower.name, neuron.layer)
            channels = torch.full((RELEVANCE_BATCH,), neuron.channel, device=self.model.device)

            def part(index: np.ndarray) -> np.ndarray:
                inputs = self.model.inputs(self._input(index), piece)
                rows = torch.arange(len(index), device=self.model.device)
                found = attribution.relevance(piece, inputs, channels[: len(index)], rows, rule)
                return found.float().cpu().numpy()

            parts = list(self._parts(part, references.index, RELEVANCE_BATCH, "Relevance", report))
            return Rows(np.concatenate(parts), lower.name)

        return self._stored("relevance", neuron.address, args, Rows, make).values

    def activations(self, layer: str, index: np.ndarray, report: Report) -> np.ndarray:
        """f32[K,C], see Lab."""
        return np.asarray(self.scan(layer, report).mean[:, index], np.float32).T.copy()

    def crops(self, neuron: Neuron, query: ReferenceQuery, report: Report) -> Crops:
        """Where the neuron looks in its references: relevance of pixels from its strongest
        position. Where a module has no rule, gradient x input is used, and ``rule`` says so."""

        def make() -> Crops:
            references = self.references(neuron, query, report)
            try:
                return self._crops(references, "lrp", report)
            except MissingRule:
                return self._crops(references, "gradient", report)

        return self._stored("crops", neuron.address, {"references": asdict(query)}, Crops, make)

    def _crops(self, references: References, rule: str, report: Report) -> Crops:
        neuron = references.neuron
        piece = self.model.slice(None, neuron.layer)
        positions = dict(zip(references.index.tolist(), references.position.tolist(), strict=True))

        def part(index: np.ndarray) -> np.ndarray:
            channels = torch.full((len(index),), neuron.channel, device=self.model.device)
            places = torch.tensor([positions[int(i)] for i in index], device=self.model.device)
            heat = attribution.heat(piece, self._input(index), channels, places, rule)
            return heat.float().cpu().numpy()

        parts = list(self._parts(part, references.index, HEAT_BATCH, "Heat maps", report))
        box, heat, degenerate = boxes_and_heat(np.concatenate(parts))
        return Crops(neuron, references.query, references.index, box, heat, degenerate, rule)

    def embed(
        self, embedder: str, index: np.ndarray, boxes: np.ndarray | None, report: Report
    ) -> np.ndarray:
        """f32[K,E], see Lab; ``boxes`` None embeds whole views."""
        size = self.network.preprocess.crop
        whole = np.tile(np.array([0, 0, size, size], np.int32), (len(index), 1))
        boxes = whole if boxes is None else boxes
        args = {
            "embedder": embedder,
            "weights": identity_of_embedder(embedder),
            "index": digest(index),
            "boxes": digest(boxes),
        }

        def part(at: np.ndarray) -> np.ndarray:
            pieces = []
            for k in at:
                left, top, right, bottom = boxes[k]
                pieces.append(self.view(int(index[k]))[top:bottom, left:right])
            return self._shelf.embedder(embedder).images(pieces)

        def make() -> Rows:
            places = np.arange(len(index))
            parts = list(self._parts(part, places, EMBED_BATCH, "Embedding pictures", report))
            return Rows(np.concatenate(parts), embedder)

        return self._stored("embedding", "", args, Rows, make).values

    def embed_references(
        self, references: References, embedder: str, report: Report
    ) -> tuple[np.ndarray, str]:
        """f32[K,E] and the embedder used, see Lab."""
        spec = embedder or self._embedder()
        crops = self.crops(references.neuron, references.query, report)
        return self.embed(spec, crops.index, crops.box, report), spec

    def _embedder(self) -> str:
        """The workspace's embedder, or the stand-in where that cannot be had."""
        return resolve(self.workspace.embedder, self._shelf.embedder).used

    def _stored(
        self, kind: str, subject: str, args: Mapping[str, Any], what: type[T], make: Callable[[], T]
    ) -> T:
        """An answer of the store, or made and stored now: questions share what they need."""
        name = key(Question(kind, self.workspace, subject, args), self.identity)
        found = self._store.get(name)
        if not isinstance(found, what):
            found = make()
            self._store.put(name, found)
        return found

    def _parts(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        items: np.ndarray,
        size: int,
        what: str,
        report: Report,
    ) -> Iterator[np.ndarray]:
        """Apply to batches of items, reporting between them."""
        for start in range(0, len(items), size):
            report(start / len(items), f"{what}: {start} of {len(items)}")
            yield from in_batches(function, items[start : start + size], size)

    def _input(self, index: np.ndarray) -> torch.Tensor:
        return to_input(np.stack([self.view(int(image)) for image in index]), self.model)

    def view(self, image: int) -> np.ndarray:
        """u8[S,S,3]: the picture as the network sees it."""
        if image not in self._views:
            path = self.images.paths[image]
            self._views[image] = view(self.images.root, path, self.network.preprocess)
        self._views.move_to_end(image)
        while len(self._views) > VIEWS_KEPT:
            self._views.popitem(last=False)
        return self._views[image]
