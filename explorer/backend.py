"""Backend: question -> key -> stored answer, or one job. What pages and command line call.

It never imports torch: whatever needs the device is answered by the worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from explorer import browse, embedders, questions
from explorer.desk import Asker, Desk
from explorer.explanations import Explanations
from explorer.jobs import Jobs
from explorer.keys import Question, begun, key
from explorer.previews import Previews
from explorer.questions import SplitQuestion, Study
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
    ScanReport,
    Search,
    Split,
    Status,
    Workspace,
)
from explorer.settings import Settings
from explorer.studies import Studies
from explorer.surgery_desk import SurgeryDesk

__all__ = ["Asker", "Backend", "SplitQuestion", "Study"]


class Backend:
    """Answers questions about workspaces. Every answer is a record, or the Status of the job
    that it waits for (or that failed: then its message says what to do). Bad names and values
    raise BadInput at once. ``queue`` is where jobs go, by default the one in the cache folder."""

    def __init__(self, settings: Settings, queue: Jobs | None = None) -> None:
        self.settings = settings
        self._desk = Desk(settings, queue)
        self._previews = Previews(self._desk.store)
        self.surgery = SurgeryDesk(self._desk)
        self.explanations = Explanations(self._desk, self.embedder)
        self.studies = Studies(self._desk, self.embedder)

    @property
    def workspaces(self) -> tuple[Workspace, ...]:
        return self.settings.workspaces

    def workspace(self, name: str) -> Workspace:
        """The workspace of that name; BadInput when there is none."""
        return self.settings.workspace(name)

    # The workspace: its network, its pictures, its scans.

    def network(self, ws: str, asker: Asker) -> NetworkInfo | Status:
        """The network with its browsable layers."""
        return self._desk.network(ws, asker)

    def images(self, ws: str, asker: Asker) -> ImageSet | Status:
        """The pictures with their labels."""
        return self._desk.images(ws, asker)

    def scanned(self, ws: str, asker: Asker) -> Mapping[str, float] | Status:
        """How far each browsable layer is scanned, 0 to 1."""
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        arrays = self._desk.arrays(opened.identity)
        return {layer.name: arrays.progress(layer.name) for layer in opened.network.layers}

    def scan(self, ws: str, layers: Sequence[str], asker: Asker) -> ScanReport | Status:
        """Scan layers; none named means those of ``browse.default_layers``."""
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        names = [opened.network.layer(name).name for name in layers] or browse.default_layers(
            opened.workspace, opened.network, len(opened.images)
        )
        arrays = self._desk.arrays(opened.identity)
        complete = all(arrays.progress(name) == 1 for name in names)
        question = questions.scan(opened.workspace, names)
        return self._desk.ask(question, opened.identity, asker, ScanReport, look=complete)

    def table(self, ws: str, layer: str, asker: Asker) -> LayerTable | Status:
        """One row per channel of a layer."""
        opened = self._desk.open_layer(ws, layer, asker)
        if isinstance(opened, Status):
            return opened
        question = questions.table(opened.workspace, opened.layer.name)
        return self._desk.ask(question, opened.identity, asker, LayerTable)

    def silhouettes(self, ws: str, layer: str, asker: Asker) -> np.ndarray | Status:
        """f32[C]: the silhouette of each neuron's default PURE split, NaN where not computed."""
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        channels = opened.network.layer(layer).channels
        found = np.full(channels, np.nan, np.float32)
        for channel in range(channels):
            question = SplitQuestion(Neuron(ws, layer, channel))
            name = key(questions.split(opened.workspace, question), opened.identity)
            if name in self._desk.store:
                split = self._desk.store.get(name)
                if isinstance(split, Split):
                    found[channel] = split.scores.get("silhouette", np.nan)
        return found

    # One neuron.

    def references(
        self, neuron: Neuron, query: ReferenceQuery, asker: Asker
    ) -> References | Status:
        """The images that stand for a neuron; DeadNeuron where there are none."""
        opened = self._desk.open_neuron(neuron, asker)
        if isinstance(opened, Status):
            return opened
        return browse.references(opened.scan, opened.images, neuron, query)

    def histogram(self, neuron: Neuron, bins: int, asker: Asker) -> Histogram | Status:
        """The neuron's spatial maxima over all images."""
        opened = self._desk.open_neuron(neuron, asker)
        if isinstance(opened, Status):
            return opened
        return browse.histogram(opened.scan, neuron.channel, bins)

    def crops(self, neuron: Neuron, query: ReferenceQuery, asker: Asker) -> Crops | Status:
        """Where the neuron looks in its references."""
        return self._desk.ask_about(
            neuron, asker, lambda ws: questions.crops(ws, neuron, query), Crops
        )

    def begun(self, name: str) -> Any:
        """What is there of the answer of that key before all of it is: whole for what it has. None
        if nothing is."""
        return self._desk.store.get(begun(name))

    def split(self, question: SplitQuestion, asker: Asker) -> Split | Status:
        """The neuron's virtual neurons."""
        return self._desk.ask_about(
            question.neuron, asker, lambda ws: questions.split(ws, question), Split
        )

    def projection(self, question: SplitQuestion, asker: Asker) -> Projection | Status:
        """The rows of a split on a plane, by UMAP."""
        return self._desk.ask_about(
            question.neuron, asker, lambda ws: questions.projection(ws, question), Projection
        )

    def assignment(
        self, question: SplitQuestion, query: ReferenceQuery, asker: Asker
    ) -> Assignment | Status:
        """Which virtual neuron of a split each image of ``query`` belongs to."""

        def build(workspace: Workspace) -> Question:
            return questions.assignment(workspace, question, query)

        return self._desk.ask_about(question.neuron, asker, build, Assignment)

    # Against an embedder.

    def embedder(self, ws: str, asker: Asker, spec: str = "") -> EmbedderInfo | Status:
        """The embedder named, or the workspace's own, as found on this machine."""
        workspace = self.workspace(ws)
        spec = spec or workspace.embedder
        question = questions.embedder(workspace, spec)
        identity = embedders.identity(spec)
        return self._desk.ask(question, questions.nothing_but(identity), asker, EmbedderInfo)

    def alignment(
        self, question: SplitQuestion, asker: Asker, embedder: str = ""
    ) -> Alignment | Status:
        """How well a split agrees with an embedder; the default is the workspace's own."""
        info = self.embedder(question.neuron.workspace, asker, embedder)
        if isinstance(info, Status):
            return info
        weights = embedders.identity(info.used)

        def build(workspace: Workspace) -> Question:
            return questions.alignment(workspace, question, info.used, weights)

        answer = self._desk.ask_about(question.neuron, asker, build, Alignment)
        return replace(answer, notice=info.notice) if isinstance(answer, Alignment) else answer

    def search(self, ws: str, layer: str, text: str, asker: Asker) -> Search | Status:
        """The neurons of a layer ranked by words."""
        opened = self._desk.open_layer(ws, layer, asker)
        if isinstance(opened, Status):
            return opened
        info = self.embedder(ws, asker)
        if isinstance(info, Status):
            return info
        if not info.texts:
            raise BadInput(f"{info.title} embeds pictures only: choose one that embeds text too.")
        weights = embedders.identity(info.used)
        question = questions.search(opened.workspace, opened.layer.name, text, info.used, weights)
        answer = self._desk.ask(question, opened.identity, asker, Search)
        return replace(answer, notice=info.notice) if isinstance(answer, Search) else answer

    # What leaves the explorer.

    def figure(self, recipe: Mapping[str, Any], form: str, asker: Asker) -> FigureFile | Status:
        """A figure file from its recipe; ``form`` is pdf, svg or png."""
        from explorer import figures

        checked = figures.validate(recipe)
        figures.check_format(form)
        if checked["figure"] == "planted":
            return self.studies.planted_figure(checked, form, asker)
        neuron = Neuron.parse(checked["workspace"], checked["neuron"])
        info = self.embedder(neuron.workspace, asker, checked["embedder"])
        if isinstance(info, Status):
            return info
        weights = embedders.identity(info.used)

        def build(workspace: Workspace) -> Question:
            return questions.figure(workspace, checked, form, info.used, weights)

        return self._desk.ask_about(neuron, asker, build, FigureFile)

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
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        return self._previews.thumbnails(
            opened.images, opened.network.preprocess, index, style, crops, size
        )

    # Jobs and the cache.

    def jobs(self) -> tuple[Status, ...]:
        """What is running or waiting, in order, then what ended lately."""
        return (*self._desk.queue.active(), *self._desk.queue.recent(10))

    def status(self, job: str, asker: Asker) -> Status | None:
        """How a job stands; asking says that this person still waits for it."""
        return self._desk.queue.status(job, asker.owner)

    def cancel(self, job: str, asker: Asker) -> None:
        """Withdraw this person from a job; it ends if nobody else waits for it."""
        self._desk.queue.cancel(job, asker.owner)

    def retry(self, job: str, asker: Asker) -> Status | None:
        """Run a failed or cancelled job again; None if it is forgotten (ask anew then)."""
        return self._desk.queue.retry(job, owner=asker.owner, scope=asker.scope)

    def usage(self) -> dict[str, int]:
        """How many answers the cache holds, their bytes, and the limit in bytes."""
        return self._desk.store.usage()
