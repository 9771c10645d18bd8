"""Answers about one neuron: where it looks, how it splits, how well, and the figure of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from explorer import browse, figures, questions
from explorer.answers.room import Room, inner, neuron_of
from explorer.compute import clustering, plane, projections
from explorer.compute.embedding import resolve
from explorer.compute.one_core import one_core
from explorer.figures import virtual_neurons
from explorer.images.thumbnails import render
from explorer.keys import Identity, Question, key, query_from
from explorer.lab import Report
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.questions import SplitQuestion
from explorer.records import (
    Alignment,
    Assignment,
    BadInput,
    Crops,
    Distances,
    FigureFile,
    Neuron,
    Projection,
    Ranking,
    Split,
)
from explorer.scores.alignment import alignment as judge

REFERENCES, STRONGEST = 16, 9
"""What the page of a neuron shows at first: so many references, and of each virtual neuron."""


def crops(room: Room, question: Question, identity: Identity, report: Report) -> Crops:
    """Where the neuron looks in its references; in those that a page shows at first before the
    others, if its split is known."""
    lab, neuron = room.lab(question, identity), neuron_of(question)
    query = query_from(question.args["references"])
    wanted: list[int] = []
    if query.by != browse.SINGULAR:  # which is never split by itself
        asked = questions.split(question.workspace, SplitQuestion(neuron, references=query))
        found = room.store.get(key(asked, identity))
        wanted = shown_at_first(found) if isinstance(found, Split) else []
    return lab.crops(neuron, query, report, wanted)


def shown_at_first(found: Split) -> list[int]:
    """The pictures that the page of a neuron shows of a split before more is asked for."""
    index, value = found.references.index, found.references.value
    order = np.argsort(-value, kind="stable")
    own = [order[found.labels[order] == virtual][:STRONGEST] for virtual in range(found.k)]
    positions = np.unique(np.concatenate([np.arange(min(REFERENCES, len(index))), *own]))
    return [int(image) for image in index[positions]]


def split(room: Room, question: Question, identity: Identity, report: Report) -> Split:
    """The neuron's virtual neurons, by the method asked for."""
    lab = room.lab(question, identity)
    method = method_named(question.args["method"])
    query = query_from(question.args["references"])
    references = lab.references(neuron_of(question), query, report)
    params = read_params(method.Params, question.args["params"])
    return method.split(lab, references, params, report)


def projection(room: Room, question: Question, identity: Identity, report: Report) -> Projection:
    """The rows of a split on a plane."""
    rows = rows_of(room, question, identity, question.args, report)
    report(0.5, "Drawing the map")
    return Projection(plane.umap_plane(rows, question.args["params"]["seed"]), "umap")


def assignment(room: Room, question: Question, identity: Identity, report: Report) -> Assignment:
    """Which virtual neuron other pictures belong to, as the method decides."""
    lab = room.lab(question, identity)
    found = _split(room, question, identity, report)
    query = query_from(question.args["references"])
    references = lab.references(neuron_of(question), query, report)
    method = method_named(found.method)
    rows, _ = method.rows(lab, references, read_params(method.Params, found.params), report)
    label, ratio = method.assign(rows, found)
    return Assignment(references.index, np.where(references.value > 0, label, -1), ratio)


def ranking(room: Room, question: Question, identity: Identity, report: Report) -> Ranking:
    """All scanned images along the direction of one virtual neuron."""
    found = _split(room, question, identity, report)
    virtual, layer = question.args["virtual"], found.neuron.layer
    if found.space != layer:
        raise BadInput(
            "Pictures are ranked along directions of the neuron's own layer, and "
            f"{method_named(found.method).title} gives none: choose concept vectors or activation "
            "k-means."
        )
    if virtual >= found.k:
        raise BadInput(f"The split has virtual neurons 0 to {found.k - 1}, not {virtual}.")
    lab = room.lab(question, identity)
    scan = lab.scan(layer, report)
    vector = found.centroid[virtual] / max(float(np.linalg.norm(found.centroid[virtual])), 1e-12)
    projected = projections.project(scan.mean, vector[None], report)[0]
    usable = projected[scan.valid]
    best = browse.highest(
        np.where(scan.valid, projected, -np.inf), lab.images.sources, question.args["count"]
    )
    return Ranking(best, projected[best], len(usable), float(usable.mean()), float(usable.std()))


def distances(room: Room, question: Question, identity: Identity, report: Report) -> Distances:
    """Pairs of references, by the rows of the split and by an embedder."""
    lab = room.lab(question, identity)
    found = _split(room, question, identity, report)
    rows = rows_of(room, question, identity, question.args["split"], report)
    embedding, _ = lab.embed_references(found.references, question.args["embedder"], report)
    kept = np.flatnonzero(found.labels >= 0)
    one, two = np.triu_indices(len(kept), 1)
    return Distances(
        method=clustering.distances(rows[kept])[one, two].astype(np.float32),
        judge=clustering.distances(embedding[kept])[one, two].astype(np.float32),
        same=found.labels[kept][one] == found.labels[kept][two],
    )


def alignment(room: Room, question: Question, identity: Identity, report: Report) -> Alignment:
    """How well the split agrees with an embedder."""
    lab = room.lab(question, identity)
    spec = question.args["embedder"]
    found = _split(room, question, identity, report)
    rows = rows_of(room, question, identity, question.args["split"], report)
    embedding, _ = lab.embed_references(found.references, spec, report)
    info = resolve(spec, room.shelf.embedder)
    with one_core():
        return judge(info, embedding, rows, found.labels, found.seed)


def figure(room: Room, question: Question, identity: Identity, report: Report) -> FigureFile:
    """A figure of the recipe, as a file."""
    recipe = question.args["recipe"]
    lab = room.lab(question, identity)
    neuron = Neuron.parse(question.workspace.name, recipe["neuron"])
    query = query_from(recipe["references"])
    asked = SplitQuestion(neuron, recipe["method"], recipe["params"], query)
    judged = {name: question.args[name] for name in ("embedder", "weights")}
    args = {"split": questions.split(question.workspace, asked).args, **judged}
    about = replace(inner("alignment", question, args), subject=neuron.address)
    aligned = room.kept(
        about, identity, Alignment, lambda: alignment(room, about, identity, report)
    )
    found = _split(room, about, identity, report)
    places = lab.crops(neuron, found.references.query, report)

    def picture(number: int) -> np.ndarray:
        view = lab.view(int(places.index[number]))
        return render(view, places.box[number], places.heat[number], recipe["style"])

    report(0.9, "Drawing")
    material = virtual_neurons.gather(recipe, found, lab.network, lab.images, aligned, picture)
    return figures.draw(recipe, material, question.args["format"])


def _split(room: Room, question: Question, identity: Identity, report: Report) -> Split:
    """The split that a question is about."""
    about = inner("split", question, question.args["split"])
    return room.kept(about, identity, Split, lambda: split(room, about, identity, report))


def rows_of(
    room: Room, question: Question, identity: Identity, args: Mapping[str, Any], report: Report
) -> np.ndarray:
    """The rows f32[K,D] that a split with these arguments divides."""
    lab = room.lab(question, identity)
    method = method_named(args["method"])
    references = lab.references(neuron_of(question), query_from(args["references"]), report)
    rows, _ = method.rows(lab, references, read_params(method.Params, args["params"]), report)
    return rows


KINDS = {
    "crops": crops,
    "split": split,
    "projection": projection,
    "assignment": assignment,
    "ranking": ranking,
    "distances": distances,
    "alignment": alignment,
    "figure": figure,
}
