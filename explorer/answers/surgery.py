"""Answers of channel surgery: what makes a layer, divisions, files."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from explorer import operations, questions
from explorer.answers import neuron
from explorer.answers.room import Room
from explorer.compute.clustering import distances
from explorer.compute.comparing import compare
from explorer.compute.device_lab import DeviceLab
from explorer.compute.embedding import resolve
from explorer.compute.incision import Concept, divided, incise
from explorer.compute.judging import spread
from explorer.compute.rewriting import edited_network
from explorer.keys import Identity, Question
from explorer.lab import Report
from explorer.networks.original import Original
from explorer.operations import Operation
from explorer.questions import SplitQuestion
from explorer.records import (
    BadInput,
    Edit,
    EditedNetwork,
    EmbedderInfo,
    Incision,
    Maker,
    Neuron,
    PartResponses,
    PartsAlignment,
    Split,
    SurgeryReport,
)
from explorer.scores.alignment import alignment as judge

SEED = 0
"""Of the nulls of alignments."""


def maker(room: Room, question: Question, identity: Identity, report: Report) -> Maker:
    """What makes the channels of a layer."""
    return original_of(room, question, identity).maker(question.subject)


def incision(room: Room, question: Question, identity: Identity, report: Report) -> Incision:
    """One operation, judged."""
    operation = operations.operation(question.args["operation"])
    before = [operations.operation(text) for text in question.args["before"]]
    original = original_of(room, question, identity)
    address = Neuron.parse("", operation.neuron)
    made = divisible(original, address.layer)
    edits = edits_before(room, question, identity, before, made, report)
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
    info = resolve(question.args["embedder"], room.shelf.embedder)
    alignments = [_alignment(lab, each, info, report) for each in incisions]
    original = original_of(room, question, identity)
    found = compare(lab, original, incisions, alignments, pictures, report)
    return SurgeryReport(**(vars(found) | {"seconds": time.monotonic() - start}))


def _alignment(
    lab: DeviceLab, found: Incision, info: EmbedderInfo, report: Report
) -> PartsAlignment:
    """How alike the highest pictures of the channel are, and those of its parts."""
    before = found.top[0][found.top[0] >= 0].astype(np.int64)
    best: dict[int, tuple[float, int]] = {}
    rows: dict[int, np.ndarray] = {}
    for part, (top, peaks) in enumerate(zip(found.top[1:], found.peaks[1:], strict=True)):
        for image, peak in zip(top.tolist(), peaks, strict=True):
            if image >= 0:
                best[image] = max(best.get(image, (-np.inf, 0)), (float(peak[part]), part))
                rows[image] = peak
    after = np.array(sorted(best), np.int64)
    labels = np.array([best[image][1] for image in after.tolist()], np.int64)
    whole = lab.embed(info.used, before, None, report)
    apart = distances(whole)[np.triu_indices(len(before), 1)]
    return PartsAlignment(
        before=float(apart.mean()) if apart.size else float("nan"),
        pictures=len(before),
        after=judge(
            info,
            lab.embed(info.used, after, None, report),
            np.stack([rows[image] for image in after.tolist()]),
            labels,
            SEED,
        ),
    )


def edited(room: Room, question: Question, identity: Identity, report: Report) -> EditedNetwork:
    """The edited network as files."""
    edits = [each.edit for each in _incisions(room, question, identity, report)]
    return edited_network(original_of(room, question, identity), edits)


def original_of(room: Room, question: Question, identity: Identity) -> Original:
    """The network with its weights as they are loaded, ready to be divided."""
    lab = room.lab(question, identity)
    workspace = question.workspace
    return room.shelf.original(workspace.network, workspace.weights, lab.network.layers)


def divisible(original: Original, layer: str) -> Maker:
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
        incised(room, question, identity, listed[: at + 1], report) for at in range(len(listed))
    ]


def edits_before(
    room: Room,
    question: Question,
    identity: Identity,
    before: Sequence[Operation],
    made: Maker,
    report: Report,
) -> list[Edit]:
    """The edits that a layer has already: those of the workspace, then these operations'."""
    own = [edit for edit in original_of(room, question, identity).edits if edit.layer == made.path]
    return own + [
        incised(room, question, identity, before[: at + 1], report).edit
        for at in range(len(before))
    ]


def on_one_layer(original: Original, listed: Sequence[Operation]) -> tuple[Maker, list[Operation]]:
    """What makes the layer of the last operation, and the operations on that layer: only they
    matter to it."""
    makers = [divisible(original, Neuron.parse("", each.neuron).layer) for each in listed]
    own = makers[-1]
    return own, [each for each, made in zip(listed, makers, strict=True) if made.path == own.path]


def incised(
    room: Room,
    question: Question,
    identity: Identity,
    listed: Sequence[Operation],
    report: Report,
) -> Incision:
    """The last of some operations, judged."""
    made, own = on_one_layer(original_of(room, question, identity), listed)
    about = operations.incision(question.workspace, own[-1], own[:-1], made.path)
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
    found = kept_split(room, question, identity, asked, report)
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
        Concept(f"virtual neuron {letter(v)}", found.references.index[found.labels == v])
        for v in range(found.k)
    ]


def kept_split(
    room: Room, question: Question, identity: Identity, asked: SplitQuestion, report: Report
) -> Split:
    """The split asked for, stored or made now."""
    about = questions.split(question.workspace, asked)
    return room.kept(about, identity, Split, lambda: neuron.split(room, about, identity, report))


def letter(virtual: int) -> str:
    """What a virtual neuron is called."""
    return chr(ord("A") + virtual)


def parts(room: Room, question: Question, identity: Identity, report: Report) -> PartResponses:
    """All pictures by the channel that the last operation divides, and by its parts."""
    listed = [operations.operation(text) for text in question.args["operations"]]
    original = original_of(room, question, identity)
    made, own = on_one_layer(original, listed)
    edit = incised(room, question, identity, listed, report).edit
    before = edits_before(room, question, identity, own[:-1], made, report)
    return divided(room.lab(question, identity), original, made, edit, before, report)


KINDS = {
    "maker": maker,
    "incision": incision,
    "surgery": surgery,
    "edited": edited,
    "parts": parts,
}
