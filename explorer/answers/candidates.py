"""Answers about which channels to divide: those that serve unlike labels, or whose splits are
unlike."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from explorer import operations, questions
from explorer.answers.room import Room
from explorer.answers.surgery import divisible, kept_split, letter, original_of
from explorer.compute.serving import SHOWN, class_relevance, unlike
from explorer.keys import Identity, Question, key
from explorer.lab import Report
from explorer.networks.dividing import cosine
from explorer.operations import Wanted
from explorer.questions import SplitQuestion
from explorer.records import (
    BadInput,
    Candidates,
    ClassRelevance,
    DeadNeuron,
    Maker,
    Neuron,
    NoCluster,
    Split,
)

STABLE = 0.5
"""Stability from which a split counts for candidates."""


def candidates(room: Room, question: Question, identity: Identity, report: Report) -> Candidates:
    """Channels that serve unlike labels, or whose splits are unlike."""
    made = divisible(original_of(room, question, identity), question.subject)
    wanted = Wanted(**question.args)
    if wanted.by == "splits":
        return _by_splits(room, question, identity, made, wanted, report)
    lab = room.lab(question, identity)
    if not len(lab.images.label_names):
        raise BadInput(
            f"The pictures of {lab.images.name} have no labels: look for candidates by splits."
        )
    about = operations.relevance(question.workspace, made.path, wanted.tau)
    original = original_of(room, question, identity)
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
    pictures = [found.best[list(labels), channel].tolist() for channel, *labels, _ in pairs]
    how = (made.channels, found.how, found.seconds)
    return _candidates(made, wanted, lab.images.label_names, pairs, pictures, *how)


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
    maximum = lab.scan(made.shown, report).maximum
    strength = np.array([maximum[channel].max() for channel in range(len(maximum))], np.float32)
    pairs, pictures, derived, looked = [], [], 0, 0
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
                found = kept_split(room, question, identity, asked, report)
            except (DeadNeuron, NoCluster):
                continue
        looked += 1
        for pair in _unlike_parts(found, wanted.gamma):
            pairs.append(pair)
            pictures.append([_strongest(found, virtual) for virtual in pair[1:3]])
    names = tuple(letter(v) for v in range(operations.MOST_CONCEPTS))
    how = f"{derived} splits made now"
    return _candidates(made, wanted, names, pairs, pictures, looked, how, time.monotonic() - start)


def _strongest(split: Split, virtual: int) -> list[int]:
    """The references of a virtual neuron that fire most, -1 where there are fewer."""
    own: list[int] = split.references.index[split.labels == virtual][:SHOWN].tolist()
    return own + [-1] * (SHOWN - len(own))


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
    wanted: Wanted,
    names: Sequence[str],
    pairs: Sequence[tuple[int, int, int, float]],
    pictures: Sequence[Sequence[Sequence[int]]],
    looked: int,
    how: str,
    seconds: float,
) -> Candidates:
    order = sorted(range(len(pairs)), key=lambda at: pairs[at][3])
    ordered = [pairs[at] for at in order]
    return Candidates(
        maker=made,
        by=wanted.by,
        names=tuple(names),
        channel=np.array([pair[0] for pair in ordered], np.int32),
        groups=np.array([pair[1:3] for pair in ordered], np.int32).reshape(-1, 2),
        cosine=np.array([pair[3] for pair in ordered], np.float32),
        pictures=np.array([pictures[at] for at in order], np.int32).reshape(-1, 2, SHOWN),
        looked=looked,
        advice="" if pairs else operations.advice(wanted, made.channels, looked),
        how=how,
        seconds=seconds,
    )


KINDS = {"candidates": candidates}
