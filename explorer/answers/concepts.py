"""How pictures respond to concepts: what every answer about explanations stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.answers.room import Room
from explorer.concepts.labels import Labels, label_concepts, labelled
from explorer.concepts.partition import Partition, partition
from explorer.concepts.responses import Curve, calibrate, default_curve, speaking
from explorer.embedders import identity as identity_of_embedder
from explorer.images import sets
from explorer.keys import Identity, Question, digest
from explorer.lab import Report
from explorer.methods.linear_explanation import Moments, moments
from explorer.records import BadInput, ConceptSet


@dataclass(frozen=True)
class Bench:
    """A concept set with its ``responses`` f32[N,M] over all pictures (those of unreadable ones
    are 0), the splits, and the moments of training and validation pictures."""

    concepts: ConceptSet
    partition: Partition
    responses: np.ndarray
    train: Moments
    validation: Moments


def concepts(room: Room, question: Question, identity: Identity, report: Report) -> ConceptSet:
    """Embed what is to be embedded, calibrate, and drop concepts that never fire."""
    return bench(room, question, identity, question.args, report).concepts


def bench(
    room: Room, question: Question, identity: Identity, args: Mapping[str, Any], report: Report
) -> Bench:
    """The bench for the concepts that ``args`` describe (see ``explorer.explanations``)."""

    def make() -> Bench:
        parts = parts_of(room, question, identity, args, report)
        if args["mode"] == "labels":
            found = _labels(room, question, identity, args["source"])
            names, responses, curve = found.names, found.member.astype(np.float32), None
        else:
            names = terms(room, args["list"])
            curve = curve_of(room, question, identity, args, args["embedder"], report)
            responses = respond(
                room, question, identity, args, args["embedder"], names, curve, report
            )
        report(0.95, "Comparing concepts")
        kept = np.flatnonzero(speaking(responses[parts.train]))
        if not kept.size:
            raise BadInput(
                f"None of the {len(names):,} concepts fires on the training pictures: give "
                "others, or choose another embedder."
            )
        responses = responses if kept.size == len(names) else responses[:, kept]
        named = tuple(names[at] for at in kept)
        info = _described(args, named, len(names), curve, parts)
        return _bench(info, parts, responses)

    return room.remembered(("bench", identity, digest(args)), make)


def bench_of_terms(
    room: Room,
    question: Question,
    identity: Identity,
    args: Mapping[str, Any],
    names: Sequence[str],
    report: Report,
) -> Bench:
    """A bench of these terms alone, whether they fire or not."""
    parts = parts_of(room, question, identity, args, report)
    curve = curve_of(room, question, identity, args, args["embedder"], report)
    found = respond(room, question, identity, args, args["embedder"], names, curve, report)
    return _bench(_described(args, tuple(names), len(names), curve, parts), parts, found)


def parts_of(
    room: Room, question: Question, identity: Identity, args: Mapping[str, Any], report: Report
) -> Partition:
    """The splits of the readable pictures."""
    images = room.lab(question, identity).images

    def make() -> np.ndarray:
        name = f"contents:{images.digest}"
        found = room.store.get(name)
        if not isinstance(found, np.ndarray):
            found = sets.contents(images, report).view(np.int64)
            room.store.put(name, found)
        return np.asarray(found.view(np.uint64))

    hashes = room.remembered(("contents", images.digest), make)
    usable = np.ones(len(images), bool)
    usable[list(args["unreadable"])] = False
    return partition(hashes, images.sources).within(usable)


def curve_of(
    room: Room,
    question: Question,
    identity: Identity,
    args: Mapping[str, Any],
    spec: str,
    report: Report,
) -> Curve:
    """The sigmoid of an embedder, fitted to the labels of the training pictures if they have
    any."""

    def make() -> Curve:
        images = room.lab(question, identity).images
        if not labelled(images):
            return default_curve(spec)
        labels = _labels(room, question, identity, "")
        parts = parts_of(room, question, identity, args, report)
        known = images.labels >= 0
        train = parts.train[known[parts.train]]
        texts = _texts(room, spec, labels.names)
        pictures = embedded(room, question, identity, args, spec, report)
        return calibrate(pictures[train] @ texts.T, labels.member[train])

    name = ("curve", identity, spec, tuple(args["unreadable"]))
    return room.remembered(name, make)


def respond(
    room: Room,
    question: Question,
    identity: Identity,
    args: Mapping[str, Any],
    spec: str,
    names: Sequence[str],
    curve: Curve,
    report: Report,
) -> np.ndarray:
    """f32[N,M]: the probability of each of M texts in every picture, by an embedder."""
    texts = _texts(room, spec, names)
    return curve(embedded(room, question, identity, args, spec, report) @ texts.T)


def embedded(
    room: Room,
    question: Question,
    identity: Identity,
    args: Mapping[str, Any],
    spec: str,
    report: Report,
) -> np.ndarray:
    """f32[N,E]: whole pictures at unit length (0 for unreadable ones)."""
    lab = room.lab(question, identity)
    total = len(lab.images)

    def make() -> np.ndarray:
        readable = np.setdiff1d(np.arange(total), args["unreadable"])
        rows = lab.embed(spec, readable, None, lambda done, text: report(0.9 * done, text))
        found = np.zeros((total, rows.shape[1]), np.float32)
        found[readable] = rows
        return found

    name = ("pictures", identity, identity_of_embedder(spec), tuple(args["unreadable"]))
    return room.remembered(name, make)


def terms(room: Room, name: str) -> tuple[str, ...]:
    """The list of that digest, as it was filed with the question."""
    found = room.store.get(f"terms:{name}")
    if not isinstance(found, tuple):
        raise BadInput("The list of concepts is not stored any more: give it again.")
    return found


def _labels(room: Room, question: Question, identity: Identity, source: str) -> Labels:
    images = room.lab(question, identity).images

    def make() -> Labels:
        return label_concepts(images, room.settings.data_dir, source)

    return room.remembered(("labels", images.digest, source), make)


def _texts(room: Room, spec: str, names: Sequence[str]) -> np.ndarray:
    embedder = room.shelf.embedder(spec)
    if not embedder.texts_too:
        raise BadInput(f"{embedder.title} embeds pictures only: choose one that embeds text too.")
    return embedder.texts(list(names))


def _bench(info: ConceptSet, parts: Partition, responses: np.ndarray) -> Bench:
    return Bench(
        info,
        parts,
        responses,
        moments(responses[parts.train]),
        moments(responses[parts.validation]),
    )


def _described(
    args: Mapping[str, Any],
    names: tuple[str, ...],
    given: int,
    curve: Curve | None,
    parts: Partition,
) -> ConceptSet:
    return ConceptSet(
        mode=args["mode"],
        names=names,
        given=given,
        source=args["source"],
        embedder=args["embedder"],
        scale=curve.scale if curve else float("nan"),
        offset=curve.offset if curve else float("nan"),
        fitted=bool(curve and curve.fitted),
        pictures=(len(parts.train), len(parts.validation), len(parts.test)),
    )


KINDS = {"concepts": concepts}
