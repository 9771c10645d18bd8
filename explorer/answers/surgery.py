"""Answers of channel surgery: what makes a layer, polysemantic channels, divisions, files."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from explorer import operations, questions
from explorer.answers import neuron
from explorer.answers.room import Room
from explorer.compute.comparing import compare
from explorer.compute.incision import Concept, incise
from explorer.compute.judging import spread
from explorer.compute.rewriting import edited_network
from explorer.compute.serving import class_relevance, unlike
from explorer.keys import Identity, Question, key
from explorer.lab import Report
from explorer.networks.dividing import cosine
from explorer.networks.original import Original
from explorer.operations import Operation, Wanted
from explorer.questions import SplitQuestion
from explorer.records import (
    BadInput,
    Candidates,
    ClassRelevance,
    DeadNeuron,
    EditedNetwork,
    Incision,
    Maker,
    Neuron,
    NoCluster,
    Split,
    SurgeryReport,
)

STABLE = 0.5
"""Stability from which a split counts for candidates."""


def maker(room: Room, question: Question, identity: Identity, report: Report) -> Maker:
    """What makes the channels of a layer."""
    return _original(room, question, identity).maker(question.subject)


def candidates(room: Room, question: Question, identity: Identity, report: Report) -> Candidates:
    """Channels that serve unlike labels, or whose splits are unlike."""
    made = _divisible(_original(room, question, identity), question.subject)
    wanted = Wanted(**question.args)
    if wanted.by == "splits":
        return _by_splits(room, question, identity, made, wanted, report)
    lab = room.lab(question, identity)
    if not len(lab.images.label_names):
        raise BadInput(
            f"The pictures of {lab.images.name} have no labels: look for candidates by splits."
        )
    about = operations.relevance(question.workspace, made.path, wanted.tau)
    original = _original(room, question, identity)
    found = room.kept(
        about,
        identity,
        ClassRelevance,
        lambda: class_relevance(lab, original, made, wanted.tau, report),
    )
    if (found.count >= wanted.least).sum() < 2:
        raise BadInput(
            f"Fewer than two labels have {wanted.least} pictures: lower that number, or look for "
            "candidates by splits."
        )
    layer = original.layer(made.path)
    pairs = list(unlike(layer, found, wanted.share, wanted.gamma, wanted.least))
    return _candidates(
        made, "classes", lab.images.label_names, pairs, made.channels, found.how, found.seconds
    )


def incision(room: Room, question: Question, identity: Identity, report: Report) -> Incision:
    """One operation, judged."""
    operation = operations.operation(question.args["operation"])
    before = [operations.operation(text) for text in question.args["before"]]
    earlier = [
        _incised(room, question, identity, before[: at + 1], report).edit
        for at in range(len(before))
    ]
    original = _original(room, question, identity)
    address = Neuron.parse("", operation.neuron)
    made = _divisible(original, address.layer)
    edits = [edit for edit in original.edits if edit.layer == made.path] + earlier
    concepts = _concepts(room, question, identity, operation, made, report)
    return incise(
        room.lab(question, identity),
        original,
        made,
        address.channel,
        concepts,
        operation.rule,
        operation.rho,
        edits,
        report,
    )


def surgery(room: Room, question: Question, identity: Identity, report: Report) -> SurgeryReport:
    """All operations in order, and the edited network against the original."""
    start = time.monotonic()
    lab = room.lab(question, identity)
    incisions = _incisions(room, question, identity, report)
    pictures = spread(len(lab.images), question.args["pictures"])
    found = compare(lab, _original(room, question, identity), incisions, pictures, report)
    return SurgeryReport(**(vars(found) | {"seconds": time.monotonic() - start}))


def edited(room: Room, question: Question, identity: Identity, report: Report) -> EditedNetwork:
    """The edited network as files."""
    edits = [each.edit for each in _incisions(room, question, identity, report)]
    return edited_network(_original(room, question, identity), edits)


def _original(room: Room, question: Question, identity: Identity) -> Original:
    lab = room.lab(question, identity)
    workspace = question.workspace
    return room.shelf.original(workspace.network, workspace.weights, lab.network.layers)


def _divisible(original: Original, layer: str) -> Maker:
    """What makes the layer; BadInput where that cannot be divided."""
    found = original.maker(layer)
    if found.refusal:
        raise BadInput(found.refusal)
    return found


def _incisions(
    room: Room, question: Question, identity: Identity, report: Report
) -> list[Incision]:
    listed = [operations.operation(text) for text in question.args["operations"]]
    return [
        _incised(room, question, identity, listed[: at + 1], report) for at in range(len(listed))
    ]


def _incised(
    room: Room,
    question: Question,
    identity: Identity,
    listed: Sequence[Operation],
    report: Report,
) -> Incision:
    """The last of some operations; of the earlier ones only those of its layer matter."""
    original = _original(room, question, identity)

    def path(operation: Operation) -> str:
        return _divisible(original, Neuron.parse("", operation.neuron).layer).path

    own = path(listed[-1])
    before = [each for each in listed[:-1] if path(each) == own]
    about = operations.incision(question.workspace, listed[-1], before, own)
    return room.kept(about, identity, Incision, lambda: incision(room, about, identity, report))


def _concepts(
    room: Room,
    question: Question,
    identity: Identity,
    operation: Operation,
    made: Maker,
    report: Report,
) -> list[Concept]:
    lab = room.lab(question, identity)
    if operation.classes:
        return [
            Concept(
                " + ".join(lab.images.label_names[number] for number in group),
                np.flatnonzero(np.isin(lab.images.labels, group)),
            )
            for group in operation.classes
        ]
    if not made.shown:
        raise BadInput(
            f"No browsable layer shows the channels of {made.path}, so there are no splits of "
            "them: give classes instead."
        )
    asked = operations.split_of(question.workspace, operation, made.shown)
    found = _split(room, question, identity, asked, report)
    if found.k < 2:
        raise BadInput(
            f"The split of {asked.neuron.address} holds together as one: give k, another method, "
            "or classes."
        )
    if found.k > operations.MOST_CONCEPTS:
        raise BadInput(
            f"The split of {asked.neuron.address} has {found.k} virtual neurons, more than "
            f"{operations.MOST_CONCEPTS}: ask for fewer."
        )
    return [
        Concept(f"virtual neuron {_letter(v)}", found.references.index[found.labels == v])
        for v in range(found.k)
    ]


def _split(
    room: Room, question: Question, identity: Identity, asked: SplitQuestion, report: Report
) -> Split:
    about = questions.split(question.workspace, asked)
    return room.kept(about, identity, Split, lambda: neuron.split(room, about, identity, report))


def _by_splits(
    room: Room,
    question: Question,
    identity: Identity,
    made: Maker,
    wanted: Wanted,
    report: Report,
) -> Candidates:
    """Channels whose stored PURE splits are stable and unlike; ``derive`` more are made now, of
    the channels that fire most."""
    start = time.monotonic()
    lab = room.lab(question, identity)
    if not made.shown:
        raise BadInput(f"No browsable layer shows the channels of {made.path}: choose another.")
    strength = np.asarray(lab.scan(made.shown, report).maximum, np.float32).max(axis=1)
    pairs, derived, looked = [], 0, 0
    for channel in np.argsort(-strength, kind="stable").tolist():
        asked = SplitQuestion(Neuron(question.workspace.name, made.shown, channel))
        name = key(questions.split(question.workspace, asked), identity)
        found = room.store.get(name)
        if not isinstance(found, Split):
            if derived >= wanted.derive:
                continue
            derived += 1
            report(derived / (wanted.derive + 1), f"Split {derived} of {wanted.derive}")
            try:
                found = _split(room, question, identity, asked, report)
            except (DeadNeuron, NoCluster):
                continue
        looked += 1
        pairs += _unlike_parts(found, wanted.gamma)
    names = tuple(_letter(v) for v in range(operations.MOST_CONCEPTS))
    how = f"{derived} splits made now"
    return _candidates(made, "splits", names, pairs, looked, how, time.monotonic() - start)


def _unlike_parts(split: Split, gamma: float) -> list[tuple[int, int, int, float]]:
    """Channel, the two least alike virtual neurons of a stable split and their cosine, if below
    ``gamma``."""
    if split.k < 2 or not split.scores.get("stability", 0.0) >= STABLE:
        return []
    cosines = {
        (first, second): cosine(split.centroid[first], split.centroid[second])
        for first in range(split.k)
        for second in range(first + 1, split.k)
    }
    pair = min(cosines, key=lambda each: cosines[each])
    return [(split.neuron.channel, *pair, cosines[pair])] if cosines[pair] < gamma else []


def _candidates(
    made: Maker,
    by: str,
    names: Sequence[str],
    pairs: Sequence[tuple[int, int, int, float]],
    looked: int,
    how: str,
    seconds: float,
) -> Candidates:
    ordered = sorted(pairs, key=lambda pair: pair[3])
    return Candidates(
        maker=made,
        by=by,
        names=tuple(names),
        channel=np.array([pair[0] for pair in ordered], np.int32),
        groups=np.array([pair[1:3] for pair in ordered], np.int32).reshape(-1, 2),
        cosine=np.array([pair[3] for pair in ordered], np.float32),
        looked=looked,
        how=how,
        seconds=seconds,
    )


def _letter(virtual: int) -> str:
    return chr(ord("A") + virtual)


KINDS = {
    "maker": maker,
    "candidates": candidates,
    "incision": incision,
    "surgery": surgery,
    "edited": edited,
}
