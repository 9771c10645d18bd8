"""Answers about a workspace: its network, its pictures, its layers, its embedder."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from explorer import browse, questions
from explorer.answers.room import Room
from explorer.compute.embedding import resolve
from explorer.images import sets
from explorer.keys import Identity, Question, key
from explorer.lab import Report
from explorer.records import PRECISIONS, DeadNeuron, LayerTable, NetworkInfo, ScanReport, Search

FALLBACK_SECONDS = 600.0
"""How long an embedder that could not be had is not looked for again."""

SEARCHED_REFERENCES = 12

ROUNDED = (
    "Scanned in {}: the strongest pictures of a neuron differ slightly from those in float32 "
    "(of the top 100, about 95 are the same)."
)


def network(room: Room, question: Question, identity: Identity, report: Report) -> NetworkInfo:
    """Load and trace the network."""
    workspace = question.workspace
    report(0.0, f"Loading {workspace.network}")
    info = room.shelf.network(workspace.network, workspace.weights).info
    if workspace.precision == PRECISIONS[0]:
        return info
    return replace(
        info, notice=" ".join((info.notice, ROUNDED.format(workspace.precision))).strip()
    )


def images(room: Room, question: Question, identity: Identity, report: Report) -> None:
    """Index the pictures; a named set is fetched first. Stored here, under the fingerprint that
    the pictures have once they are there."""
    workspace, data = question.workspace, room.settings.data_dir
    found = sets.open_set(workspace.images, data, report)
    fingerprint = sets.fingerprint(workspace.images, data)
    about = questions.images(workspace, fingerprint)
    room.store.put(key(about, questions.nothing_but(fingerprint)), found)


def scan(room: Room, question: Question, identity: Identity, report: Report) -> ScanReport:
    """Scan what is missing of the layers."""
    lab = room.lab(question, identity)
    start = time.monotonic()
    with room.cluster() as cluster:
        passed = lab.scan_layers(question.args["layers"], report, cluster)
    seconds = time.monotonic() - start
    layers = tuple(question.args["layers"])
    return ScanReport(
        images=len(lab.images),
        skipped=lab.scan(layers[0], report).skipped,
        layers=layers,
        seconds=seconds,
        images_per_second=passed / seconds if seconds > 0 else 0.0,
    )


def table(room: Room, question: Question, identity: Identity, report: Report) -> LayerTable:
    """One row per channel of the layer."""
    lab = room.lab(question, identity)
    return browse.table(lab.scan(question.subject, report), lab.images)


def embedder(room: Room, question: Question, identity: Identity, report: Report) -> None:
    """Look for the embedder. Stored here, because a stand-in is only believed for a while."""
    info = resolve(question.args["spec"], room.shelf.embedder)
    expire = FALLBACK_SECONDS if info.used != info.requested else None
    room.store.put(key(question, identity), info, expire)


def search(room: Room, question: Question, identity: Identity, report: Report) -> Search:
    """Cosine of the words with the mean embedding of each channel's top references, both
    relative to the mean embedding of all pictures used."""
    lab = room.lab(question, identity)
    spec, text = question.args["embedder"], question.args["text"]
    found = table(room, question, identity, report)
    top = found.top[:, :SEARCHED_REFERENCES]
    used = np.unique(top[top >= 0])
    if not used.size:
        raise DeadNeuron(f"No neuron of {question.subject} fires on these pictures.")
    pictures = _unit(lab.embed(spec, used, None, report))
    pictures = pictures - pictures.mean(axis=0)
    wanted = _unit(room.shelf.embedder(spec).texts([text]))[0]
    score = np.full(len(top), np.nan, np.float32)
    for channel in np.flatnonzero(found.alive):
        own = np.searchsorted(used, top[channel][top[channel] >= 0])
        score[channel] = _unit(pictures[own].mean(axis=0)[None])[0] @ wanted
    return Search(question.subject, text, spec, "", score)


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


KINDS = {
    "network": network,
    "images": images,
    "scan": scan,
    "table": table,
    "embedder": embedder,
    "search": search,
}
