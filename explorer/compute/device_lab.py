"""The Lab on a device: answers what methods ask, keeping whatever another question may reuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from explorer import browse
from explorer.arrays import ScanArrays
from explorer.compute import grouped, locating, projections
from explorer.compute.batching import reported
from explorer.compute.clock import Clock
from explorer.compute.embedding import resolve
from explorer.compute.engine import Cluster
from explorer.compute.lower_maps import DISK_GB, LowerMaps
from explorer.compute.pieces import cut
from explorer.compute.scan import scan, scan_on
from explorer.compute.shelf import Shelf
from explorer.compute.views import Views
from explorer.embedders import identity as identity_of_embedder
from explorer.keys import Identity, Question, begun, digest, key
from explorer.lab import Report
from explorer.networks.graph import Network
from explorer.records import (
    Crops,
    Directions,
    ImageSet,
    Layer,
    LayerTable,
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

RELEVANCE_BATCH, EMBED_BATCH = 50, 25
EMBEDDED = 100
"""How many embeddings are stored at once: what is lost when somebody stops waiting."""
BEGUN_SECONDS = 600.0
"""For how long the first crops of a neuron are kept, which can be had before all are there."""

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
        self._views = Views(images, lambda: self.model)
        self.maps = LowerMaps(self._views.inputs, Store(cache / "maps", DISK_GB), identity.scans)
        self._sweeps = cache / "sweeps" / identity.scans
        self.clock = Clock()
        self.cluster: Cluster | None = None
        """What computes relevances of many neurons, if not this process."""

    @property
    def model(self) -> Network:
        """The network itself, loaded on first use."""
        return self._shelf.network(self.workspace.network, self.workspace.weights)

    @property
    def network(self) -> NetworkInfo:
        return self.model.info

    def scan_layers(
        self, layers: Sequence[str], report: Report, cluster: Cluster | None = None
    ) -> int:
        """Scan what is missing of the layers; the number of pictures passed over now."""
        missing = [self.network.layer(name) for name in layers if self._arrays.progress(name) < 1]
        if not missing:
            return 0
        with self.clock.stage("scan"), self._arrays.writer(missing, len(self.images)) as writer:
            passed = writer.missing
            if cluster is None:
                about = self.workspace
                network = self._shelf.network(about.network, about.weights, about.precision)
                scan(network, self.images, writer, report)
            else:
                scan_on(cluster, self.workspace, self.images, writer, report)
        return passed

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
        scan = self.scan(neuron.layer, report)
        if query.by != browse.SINGULAR:
            return browse.references(scan, self.images, neuron, query)
        direction = self.directions(neuron.layer, report).vectors[neuron.channel]
        projected = projections.project(scan.mean, direction[None], report)[0]
        return browse.references(scan, self.images, neuron, query, projected)

    def directions(self, layer: str, report: Report) -> Directions:
        """The singular directions of a layer's scan."""
        means = self.scan(layer, report).mean

        def make() -> Directions:
            return projections.directions(layer, means, report)

        return self._stored("directions", layer, {}, Directions, make)

    def relevance(
        self, references: References, lower: Layer, rule: str, report: Report
    ) -> np.ndarray:
        """f32[K,D], see Lab. Only the sub-network between the layers is differentiated."""
        neuron = references.neuron
        self._look_ahead(lower.name, neuron.layer, rule)

        def make() -> Rows:
            between, count = (lower.name, neuron.layer), len(references.index)
            attribute = grouped.attributing(self.model, self.maps, between, rule, count)

            def part(index: np.ndarray) -> np.ndarray:
                return attribute(index, np.full(len(index), neuron.channel), np.arange(len(index)))

            with self.clock.stage("relevance"):
                made = reported(part, references.index, RELEVANCE_BATCH, "Relevance", report)
            return Rows(made, lower.name)

        return self._kept(self._relevance_key(references, lower, rule), Rows, make).values

    def get_ready(self) -> bool:
        """A moment's work for another neuron of the layer that was asked about last; whether there
        is more."""
        return self.maps.get_ready()

    def _look_ahead(self, lower: str, upper: str, rule: str) -> None:
        """Get ready for other neurons of a layer, as far as there is a table of them."""
        table = self._store.get(self._key("table", upper, {}))
        if isinstance(table, LayerTable):
            self.maps.look_ahead(self.model, (lower, upper), rule, table.top)

    def relevances(
        self, references: Sequence[References], lower: Layer, rule: str, report: Report
    ) -> None:
        """See Lab."""
        wanted = {self._relevance_key(each, lower, rule): each for each in references}
        names = [name for name in wanted if name not in self._store]
        if not names:
            return
        pairs = grouped.Pairs([wanted[name] for name in names])
        layer = references[0].neuron.layer
        folder = self._sweeps / digest(layer, lower.name, rule, references[0].query)
        ledger = grouped.Ledger(folder, digest(names), lower.channels, len(pairs.picture))
        spread = self._spread((lower.name, layer), rule, len(pairs.picture))
        with self.clock.stage("relevance"), ledger:
            made = grouped.rows_of(ledger, pairs, spread, report, self._device)
            for name, rows in zip(names, made, strict=True):
                self._store.put(name, Rows(rows, lower.name))

    @property
    def _device(self) -> str:
        """The kind of device that computes relevances of many neurons: "cpu" or "cuda"."""
        device = str(self.model.device) if self.cluster is None else self.cluster.device
        return device.split(":")[0]

    def _spread(self, between: tuple[str, str], rule: str, pictures: int) -> grouped.Spread:
        if self.cluster is not None:
            return grouped.on(self.cluster, self.workspace, self.images, between, rule)
        about = self.model, self.maps, between
        attribute = grouped.attributing(*about, rule, 0)
        return grouped.here(attribute, grouped.making(*about, pictures), self._device == "cpu")

    def _relevance_key(self, references: References, lower: Layer, rule: str) -> str:
        args = {"references": asdict(references.query), "lower": lower.name, "rule": rule}
        return self._key("relevance", references.neuron.address, args)

    def activations(self, layer: str, index: np.ndarray, report: Report) -> np.ndarray:
        """f32[K,C], see Lab."""
        return np.asarray(self.scan(layer, report).mean[:, index], np.float32).T.copy()

    def crops(
        self,
        neuron: Neuron,
        query: ReferenceQuery,
        report: Report,
        wanted: Sequence[int] = (),
        at_hand: References | None = None,
    ) -> Crops:
        """Where the neuron looks in its references: relevance of pixels from its strongest place,
        those ``wanted`` before others. Where a module has no rule it is gradient x input; ``rule``
        says so. A singular direction cannot look anywhere: whole pictures, rule "none"."""

        def make() -> Crops:
            references = at_hand or self.references(neuron, query, report)
            if query.by == browse.SINGULAR:
                return locating.whole(references, self.network.preprocess.crop)
            try:
                return self._crops(references, "lrp", wanted, report)
            except MissingRule:
                return self._crops(references, "gradient", wanted, report)

        return self._kept(self._crops_key(neuron, query), Crops, make)

    def _crops(
        self, references: References, rule: str, wanted: Sequence[int], report: Report
    ) -> Crops:
        neuron, before = references.neuron, np.flatnonzero(np.isin(references.index, wanted))
        name = begun(self._crops_key(neuron, references.query))
        about = self.model.slice(None, neuron.layer), self._views.inputs, references, rule, before
        with self.clock.stage("crops"):
            first = partial(self._store.put, name, expire=BEGUN_SECONDS)
            return locating.crops(*about, first, report)

    def _crops_key(self, neuron: Neuron, query: ReferenceQuery) -> str:
        return self._key("crops", neuron.address, {"references": asdict(query)})

    def embed(
        self, embedder: str, index: np.ndarray, boxes: np.ndarray | None, report: Report
    ) -> np.ndarray:
        """f32[K,E], see Lab; ``boxes`` None embeds whole views."""
        if boxes is None:
            boxes = locating.whole_boxes(len(index), self.network.preprocess.crop)
        about = {"embedder": embedder, "weights": identity_of_embedder(embedder)}

        def part(at: np.ndarray) -> np.ndarray:
            return self._shelf.embedder(embedder).images(cut(self.view, index[at], boxes[at]))

        def stored(at: np.ndarray) -> np.ndarray:
            where = {"index": digest(index[at]), "boxes": digest(boxes[at])}

            def make() -> Rows:
                among = int(at[0]), len(index)
                with self.clock.stage("embedding"):
                    made = reported(part, at, EMBED_BATCH, "Embedding pictures", report, among)
                return Rows(made, embedder)

            return self._stored("embedding", "", about | where, Rows, make).values

        shards = np.split(np.arange(len(index)), range(EMBEDDED, len(index), EMBEDDED))
        return np.concatenate([stored(at) for at in shards])

    def embed_references(
        self, references: References, embedder: str, report: Report
    ) -> tuple[np.ndarray, str]:
        """f32[K,E] and the embedder used, see Lab."""
        spec = embedder or self._embedder()
        crops = self.crops(references.neuron, references.query, report, at_hand=references)
        return self.embed(spec, crops.index, crops.box, report), spec

    def _embedder(self) -> str:
        """The workspace's embedder, or the stand-in where that cannot be had."""
        return resolve(self.workspace.embedder, self._shelf.embedder).used

    def _stored(
        self, kind: str, subject: str, args: Mapping[str, Any], what: type[T], make: Callable[[], T]
    ) -> T:
        """An answer of the store, or made and stored now: questions share what they need."""
        return self._kept(self._key(kind, subject, args), what, make)

    def _key(self, kind: str, subject: str, args: Mapping[str, Any]) -> str:
        return key(Question(kind, self.workspace, subject, args), self.identity)

    def _kept(self, name: str, what: type[T], make: Callable[[], T]) -> T:
        found = self._store.get(name)
        if not isinstance(found, what):
            found = make()
            self._store.put(name, found)
        return found

    def view(self, image: int) -> np.ndarray:
        """u8[S,S,3]: the picture as the network sees it."""
        return self._views.of(image)
