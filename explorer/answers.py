"""What computes each kind of question. Run by the worker, against the Lab, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from explorer import browse
from explorer.compute import clustering
from explorer.compute.device_lab import DeviceLab
from explorer.compute.embedding import resolve
from explorer.compute.shelf import Shelf
from explorer.images import sets
from explorer.keys import Identity, Question, key, query_from, question_from
from explorer.lab import Report
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.records import (
    Alignment,
    Assignment,
    BadInput,
    Crops,
    EmbedderInfo,
    FigureFile,
    ImageSet,
    LayerTable,
    NetworkInfo,
    Neuron,
    Projection,
    ScanReport,
    Search,
    Split,
    Workspace,
)
from explorer.scores.alignment import alignment
from explorer.settings import Settings
from explorer.store import Store

FALLBACK_SECONDS = 600.0
"""How long an embedder that could not be had is not looked for again."""

SEARCHED_REFERENCES = 12


class Answers:
    """Callable as ``answers(kind, args, report)``: the record that answers a job."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._shelf = Shelf(settings.device)
        self._images: dict[str, ImageSet] = {}
        self._labs: dict[Identity, DeviceLab] = {}
        self._kinds: dict[str, Callable[[Question, Identity, Report], Any]] = {
            "network": self._network,
            "images": self._index,
            "scan": self._scan,
            "table": self._table,
            "crops": self._crops,
            "split": self._split,
            "projection": self._projection,
            "assignment": self._assignment,
            "embedder": self._embedder,
            "alignment": self._alignment,
            "search": self._search,
            "figure": self._figure,
        }

    def __call__(self, kind: str, args: Mapping[str, Any], report: Report) -> Any:
        question, identity = question_from(kind, args)
        return self._kinds[kind](question, identity, report)

    # The workspace.

    def _network(self, question: Question, identity: Identity, report: Report) -> NetworkInfo:
        workspace = question.workspace
        report(0.0, f"Loading {workspace.network}")
        return self._shelf.network(workspace.network, workspace.weights).info

    def _index(self, question: Question, identity: Identity, report: Report) -> ImageSet:
        return sets.open_set(question.workspace.images, self._settings.data_dir, report)

    def _scan(self, question: Question, identity: Identity, report: Report) -> ScanReport:
        lab = self._lab(question.workspace, identity)
        start = time.monotonic()
        passed = lab.scan_layers(question.args["layers"], report)
        seconds = time.monotonic() - start
        layers = tuple(question.args["layers"])
        return ScanReport(
            images=len(lab.images),
            skipped=lab.scan(layers[0], report).skipped,
            layers=layers,
            seconds=seconds,
            images_per_second=passed / seconds if seconds > 0 else 0.0,
        )

    def _table(self, question: Question, identity: Identity, report: Report) -> LayerTable:
        lab = self._lab(question.workspace, identity)
        return browse.table(lab.scan(question.subject, report), lab.images)

    # One neuron.

    def _crops(self, question: Question, identity: Identity, report: Report) -> Crops:
        lab = self._lab(question.workspace, identity)
        return lab.crops(_neuron(question), query_from(question.args["references"]), report)

    def _split(self, question: Question, identity: Identity, report: Report) -> Split:
        lab = self._lab(question.workspace, identity)
        args = question.args
        method = method_named(args["method"])
        references = lab.references(_neuron(question), query_from(args["references"]), report)
        return method.split(lab, references, read_params(method.Params, args["params"]), report)

    def _projection(self, question: Question, identity: Identity, report: Report) -> Projection:
        rows = self._rows(question, identity, question.args, report)
        report(0.5, "Drawing the map")
        plane = clustering.plane_umap(rows, question.args["params"]["seed"])
        return Projection(plane, "umap")

    def _assignment(self, question: Question, identity: Identity, report: Report) -> Assignment:
        lab = self._lab(question.workspace, identity)
        split = self._split_of(question, identity, report)
        query = query_from(question.args["references"])
        references = lab.references(_neuron(question), query, report)
        method = method_named(split.method)
        params = read_params(method.Params, split.params)
        rows, _ = method.rows(lab, references, params, report)
        label, ratio = clustering.nearest(rows, split.centroid)
        fires = references.value > 0
        return Assignment(references.index, np.where(fires, label, -1), ratio)

    # Against an embedder.

    def _embedder(self, question: Question, identity: Identity, report: Report) -> None:
        """Stored here, because a stand-in is only believed for a while."""
        info: EmbedderInfo = resolve(question.args["spec"], self._shelf.device)
        expire = FALLBACK_SECONDS if info.notice and info.used != info.requested else None
        self._store.put(key(question, identity), info, expire)

    def _alignment(self, question: Question, identity: Identity, report: Report) -> Alignment:
        lab = self._lab(question.workspace, identity)
        args = question.args
        split = self._split_of(question, identity, report)
        rows = self._rows(question, identity, args["split"], report)
        embedding, _ = lab.embed_references(split.references, args["embedder"], report)
        opened = self._shelf.embedder(args["embedder"])
        info = EmbedderInfo(args["embedder"], args["embedder"], opened.title, "", opened.texts_too)
        return alignment(info, embedding, rows, split.labels, split.seed)

    def _search(self, question: Question, identity: Identity, report: Report) -> Search:
        lab = self._lab(question.workspace, identity)
        spec = question.args["embedder"]
        found = self._table(question, identity, report)
        top = found.top[:, :SEARCHED_REFERENCES]
        used = np.unique(top[top >= 0])
        pictures = _unit(lab.embed(spec, used, None, report))
        pictures = pictures - pictures.mean(axis=0)
        text = _unit(lab.embed_texts(spec, [question.args["text"]]))[0]
        score = np.full(len(top), np.nan, np.float32)
        for channel in np.flatnonzero(found.alive):
            own = np.searchsorted(used, top[channel][top[channel] >= 0])
            score[channel] = _unit(pictures[own].mean(axis=0)[None])[0] @ text
        return Search(question.subject, question.args["text"], spec, "", score)

    def _figure(self, question: Question, identity: Identity, report: Report) -> FigureFile:
        raise BadInput("figure: wired below")

    # What several questions share.

    def _lab(self, workspace: Workspace, identity: Identity) -> DeviceLab:
        if identity not in self._labs:
            images = self._image_set(workspace, identity)
            self._labs = {
                identity: DeviceLab(
                    workspace, identity, images, self._shelf, self._store, self._settings.cache_dir
                )
            }
        return self._labs[identity]

    def _image_set(self, workspace: Workspace, identity: Identity) -> ImageSet:
        """The pictures as they were when the question was asked."""
        data = self._settings.data_dir
        fingerprint = sets.fingerprint(workspace.images, data)
        if fingerprint not in self._images:
            self._images = {fingerprint: sets.open_set(workspace.images, data)}
        found = self._images[fingerprint]
        if found.digest != identity.images:
            raise BadInput(
                f"The pictures of {workspace.images} have changed since this was asked: "
                "reload the page."
            )
        return found

    def _sub(self, kind: str, question: Question, args: Mapping[str, Any]) -> Question:
        return replace(question, kind=kind, args=args)

    def _split_of(self, question: Question, identity: Identity, report: Report) -> Split:
        """The split that a question is about: stored, or made and stored now."""
        inner = self._sub("split", question, question.args["split"])
        return self._kept(inner, identity, Split, lambda: self._split(inner, identity, report))

    def _rows(
        self, question: Question, identity: Identity, args: Mapping[str, Any], report: Report
    ) -> np.ndarray:
        """The rows f32[K,D] that a split with these arguments divides."""
        lab = self._lab(question.workspace, identity)
        method = method_named(args["method"])
        references = lab.references(_neuron(question), query_from(args["references"]), report)
        params = read_params(method.Params, args["params"])
        return method.rows(lab, references, params, report)[0]

    def _kept(
        self, question: Question, identity: Identity, kind: type[Any], make: Callable[[], Any]
    ) -> Any:
        name = key(question, identity)
        found = self._store.get(name)
        if not isinstance(found, kind):
            found = make()
            self._store.put(name, found)
        return found


def _neuron(question: Question) -> Neuron:
    return Neuron.parse(question.workspace.name, question.subject)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
