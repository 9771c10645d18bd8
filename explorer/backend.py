"""Backend: question -> key -> stored answer, or one job. What pages and command line call.

It never imports torch: whatever needs the device is answered by the worker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from explorer import browse, embedders, questions
from explorer.arrays import ScanArrays
from explorer.images import sets
from explorer.jobs import Jobs
from explorer.keys import BATCH, Identity, Question, job_args, key
from explorer.networks.identity import identity as network_identity
from explorer.previews import Previews
from explorer.questions import SplitQuestion
from explorer.records import (
    Alignment,
    Assignment,
    BadInput,
    Crops,
    EmbedderInfo,
    FigureFile,
    Histogram,
    ImageSet,
    LayerTable,
    NetworkInfo,
    Neuron,
    Projection,
    ReferenceQuery,
    References,
    Scan,
    ScanReport,
    Search,
    Split,
    Status,
    Workspace,
)
from explorer.settings import Settings
from explorer.store import Store

RECHECK_SECONDS = 20.0
"""How long a look at a picture folder is believed before it is looked at again."""

T = TypeVar("T")


@dataclass(frozen=True)
class Asker:
    """Who asks (a random id of a browser session or command) and what about: jobs that the same
    owner wanted under another scope are withdrawn."""

    owner: str
    scope: str


class Backend:
    """Answers questions about workspaces. Every answer is a record, or the Status of the job
    that it waits for (or that failed: then its message says what to do). Bad names and values
    raise BadInput at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.cache_dir, settings.cache_gb, settings.read_only)
        self.queue = Jobs(settings.cache_dir)
        self._fingerprints: dict[str, tuple[float, str]] = {}
        self._images: dict[str, ImageSet] = {}
        self._previews = Previews(self.store)

    @property
    def workspaces(self) -> tuple[Workspace, ...]:
        return self.settings.workspaces

    def workspace(self, name: str) -> Workspace:
        return self.settings.workspace(name)

    # The workspace: its network, its pictures, its scans.

    def network(self, ws: str, asker: Asker) -> NetworkInfo | Status:
        workspace = self.workspace(ws)
        question = questions.network(workspace)
        identity = Identity(network_identity(workspace.network, workspace.weights), "")
        return self._ask(question, identity, asker, NetworkInfo)

    def images(self, ws: str, asker: Asker) -> ImageSet | Status:
        workspace = self.workspace(ws)
        fingerprint = self._fingerprint(workspace.images)
        if fingerprint in self._images:
            return self._images[fingerprint]
        question = questions.images(workspace, fingerprint)
        answer = self._ask(question, Identity("", fingerprint), asker, ImageSet)
        if isinstance(answer, ImageSet):
            self._images[fingerprint] = answer
        return answer

    def scanned(self, ws: str, asker: Asker) -> Mapping[str, float] | Status:
        """How far each browsable layer is scanned, 0 to 1."""
        opened = self._open(ws, asker)
        if isinstance(opened, Status):
            return opened
        arrays = self._arrays(opened.identity)
        return {layer.name: arrays.progress(layer.name) for layer in opened.network.layers}

    def scan(self, ws: str, layers: Sequence[str], asker: Asker) -> ScanReport | Status:
        """Scan layers; none named means the workspace's own (see ``browse.default_layers``)."""
        opened = self._open(ws, asker)
        if isinstance(opened, Status):
            return opened
        names = [opened.network.layer(name).name for name in layers] or browse.default_layers(
            opened.workspace, opened.network, len(opened.images)
        )
        arrays = self._arrays(opened.identity)
        complete = all(arrays.progress(name) == 1 for name in names)
        question = questions.scan(opened.workspace, names)
        return self._ask(question, opened.identity, asker, ScanReport, look=complete)

    def table(self, ws: str, layer: str, asker: Asker) -> LayerTable | Status:
        opened = self._scanned(ws, layer, asker)
        if isinstance(opened, Status):
            return opened
        question = questions.table(opened.workspace, layer)
        return self._ask(question, opened.identity, asker, LayerTable)

    def silhouettes(self, ws: str, layer: str, asker: Asker) -> np.ndarray | Status:
        """f32[C]: the silhouette of each neuron's default PURE split, NaN where not computed."""
        opened = self._open(ws, asker)
        if isinstance(opened, Status):
            return opened
        channels = opened.network.layer(layer).channels
        found = np.full(channels, np.nan, np.float32)
        for channel in range(channels):
            question = SplitQuestion(Neuron(ws, layer, channel))
            name = key(questions.split(opened.workspace, question), opened.identity)
            if name in self.store:
                split = self.store.get(name)
                if isinstance(split, Split):
                    found[channel] = split.scores.get("silhouette", np.nan)
        return found

    # One neuron.

    def references(
        self, neuron: Neuron, query: ReferenceQuery, asker: Asker
    ) -> References | Status:
        opened = self._scanned(neuron.workspace, neuron.layer, asker)
        if isinstance(opened, Status):
            return opened
        browse.check_channel(neuron, opened.network.layer(neuron.layer))
        return browse.references(opened.scan, opened.images, neuron, query)

    def histogram(self, neuron: Neuron, bins: int, asker: Asker) -> Histogram | Status:
        opened = self._scanned(neuron.workspace, neuron.layer, asker)
        if isinstance(opened, Status):
            return opened
        browse.check_channel(neuron, opened.network.layer(neuron.layer))
        return browse.histogram(opened.scan, neuron.channel, bins)

    def crops(self, neuron: Neuron, query: ReferenceQuery, asker: Asker) -> Crops | Status:
        return self._about(neuron, asker, lambda ws: questions.crops(ws, neuron, query), Crops)

    def split(self, question: SplitQuestion, asker: Asker) -> Split | Status:
        return self._about(question.neuron, asker, lambda ws: questions.split(ws, question), Split)

    def projection(self, question: SplitQuestion, asker: Asker) -> Projection | Status:
        return self._about(
            question.neuron, asker, lambda ws: questions.projection(ws, question), Projection
        )

    def assignment(
        self, question: SplitQuestion, query: ReferenceQuery, asker: Asker
    ) -> Assignment | Status:
        return self._about(
            question.neuron,
            asker,
            lambda ws: questions.assignment(ws, question, query),
            Assignment,
        )

    # Against an embedder.

    def embedder(self, ws: str, asker: Asker, spec: str = "") -> EmbedderInfo | Status:
        """The embedder named, or the workspace's own, as found on this machine."""
        workspace = self.workspace(ws)
        spec = spec or workspace.embedder
        question = questions.embedder(workspace, spec)
        return self._ask(question, Identity(embedders.identity(spec), ""), asker, EmbedderInfo)

    def alignment(
        self, question: SplitQuestion, asker: Asker, embedder: str = ""
    ) -> Alignment | Status:
        info = self.embedder(question.neuron.workspace, asker, embedder)
        if isinstance(info, Status):
            return info
        weights = embedders.identity(info.used)
        answer = self._about(
            question.neuron,
            asker,
            lambda ws: questions.alignment(ws, question, info.used, weights),
            Alignment,
        )
        return replace(answer, notice=info.notice) if isinstance(answer, Alignment) else answer

    def search(self, ws: str, layer: str, text: str, asker: Asker) -> Search | Status:
        opened = self._scanned(ws, layer, asker)
        if isinstance(opened, Status):
            return opened
        info = self.embedder(ws, asker)
        if isinstance(info, Status):
            return info
        if not info.texts:
            raise BadInput(f"{info.title} embeds pictures only: choose one that embeds text too.")
        weights = embedders.identity(info.used)
        question = questions.search(opened.workspace, layer, text, info.used, weights)
        answer = self._ask(question, opened.identity, asker, Search)
        return replace(answer, notice=info.notice) if isinstance(answer, Search) else answer

    def figure(self, recipe: Mapping[str, Any], form: str, asker: Asker) -> FigureFile | Status:
        """A figure file from its recipe; ``form`` is pdf, svg or png."""
        from explorer.figures import validate

        checked = validate(recipe)
        neuron = Neuron.parse(checked["workspace"], checked["neuron"])
        return self._about(
            neuron, asker, lambda ws: questions.figure(ws, checked, form), FigureFile
        )

    # Pictures for the screen.

    def thumbnails(
        self,
        ws: str,
        index: Sequence[int],
        asker: Asker,
        style: str = "whole",
        crops: Crops | None = None,
        size: int = 128,
    ) -> list[bytes] | Status:
        """WebP bytes of pictures; styles other than "whole" need the ``crops`` of the images."""
        opened = self._open(ws, asker)
        if isinstance(opened, Status):
            return opened
        return self._previews.thumbnails(
            opened.images, opened.network.preprocess, index, style, crops, size
        )

    # Jobs.

    def jobs(self) -> tuple[Status, ...]:
        """What is waiting or running, in order, then what ended lately."""
        return (*self.queue.active(), *self.queue.recent(10))

    def status(self, job: str, asker: Asker) -> Status | None:
        return self.queue.status(job, asker.owner)

    def cancel(self, job: str, asker: Asker) -> None:
        self.queue.cancel(job, asker.owner)

    def retry(self, job: str, asker: Asker) -> Status:
        """Run a failed or cancelled job again."""
        return self.queue.retry(job, asker.owner, asker.scope)

    # How an answer is found.

    def _ask(
        self,
        question: Question,
        identity: Identity,
        asker: Asker,
        kind: type[T],
        look: bool = True,
    ) -> T | Status:
        """The stored answer (where ``look``), else the Status of its one job."""
        found = self.store.get(key(question, identity)) if look else None
        return found if isinstance(found, kind) else self._submit(question, identity, asker)

    def _submit(self, question: Question, identity: Identity, asker: Asker) -> Status:
        if self.settings.read_only:
            raise BadInput(
                "This explorer is read-only and has no stored answer to that: "
                "ask where EXPLORER_READ_ONLY is not set."
            )
        return self.queue.submit(
            key(question, identity),
            question.kind,
            job_args(question, identity),
            question.title,
            owner=asker.owner,
            scope=asker.scope,
            interactive=question.kind not in BATCH,
        )

    def _about(self, neuron: Neuron, asker: Asker, build: Any, kind: type[T]) -> T | Status:
        """Ask about a neuron whose layer must be scanned first."""
        opened = self._scanned(neuron.workspace, neuron.layer, asker)
        if isinstance(opened, Status):
            return opened
        browse.check_channel(neuron, opened.network.layer(neuron.layer))
        return self._ask(build(opened.workspace), opened.identity, asker, kind)

    def _open(self, ws: str, asker: Asker) -> _Opened | Status:
        workspace = self.workspace(ws)
        network = self.network(ws, asker)
        if isinstance(network, Status):
            return network
        images = self.images(ws, asker)
        if isinstance(images, Status):
            return images
        identity = Identity(network_identity(workspace.network, workspace.weights), images.digest)
        return _Opened(workspace, network, images, identity)

    def _scanned(self, ws: str, layer: str, asker: Asker) -> _Scanned | Status:
        opened = self._open(ws, asker)
        if isinstance(opened, Status):
            return opened
        name = opened.network.layer(layer).name
        scan = self._arrays(opened.identity).read(name)
        if scan is None:
            question = questions.scan(opened.workspace, [name])
            return self._submit(question, opened.identity, asker)
        return _Scanned(opened.workspace, opened.network, opened.images, opened.identity, scan)

    def _arrays(self, identity: Identity) -> ScanArrays:
        return ScanArrays(self.settings.cache_dir / "scans" / identity.scans)

    def _fingerprint(self, images: str) -> str:
        now = time.monotonic()
        seen, fingerprint = self._fingerprints.get(images, (-RECHECK_SECONDS, ""))
        if now - seen >= RECHECK_SECONDS or not fingerprint:
            fingerprint = sets.fingerprint(images, self.settings.data_dir)
            self._fingerprints[images] = (now, fingerprint)
        return fingerprint


@dataclass(frozen=True)
class _Opened:
    workspace: Workspace
    network: NetworkInfo
    images: ImageSet
    identity: Identity


@dataclass(frozen=True)
class _Scanned(_Opened):
    scan: Scan
