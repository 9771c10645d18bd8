"""How much of a neuron's effect on the network's answers its explanation keeps."""

from __future__ import annotations

import numpy as np

from explorer.answers.concepts import bench
from explorer.answers.explanation import explanation
from explorer.answers.room import Room, neuron_of
from explorer.compute.ablation import without
from explorer.keys import Identity, Question
from explorer.lab import Report
from explorer.records import Ablation, BadInput, Explanation
from explorer.scores.ablation import ablation, linear_part, optimised, scaled
from explorer.scores.simulation import pearson


def kept_effect(room: Room, question: Question, identity: Identity, report: Report) -> Ablation:
    """How much of the neuron's effect on the network's answers its explanation keeps."""
    found = explanation(room, question, identity, report)
    lab, neuron = room.lab(question, identity), neuron_of(question)
    parts = bench(room, question, identity, question.args["concepts"], report).partition
    if found.simulator or found.virtual >= 0:
        raise BadInput("The ablation score is about a whole neuron, without a simulator.")
    both = np.concatenate([parts.validation, parts.test])
    before, after = without(lab, neuron, both, report)
    amount, direction = linear_part(before, after)
    said = _said(room, question, identity, found, both, report)
    held, rest = slice(0, len(parts.validation)), slice(len(parts.validation), None)
    mean = float(amount[held].mean())

    def kept(said: np.ndarray, factor: float, offset: float) -> float:
        value = factor * said[rest] + offset
        return ablation(before[rest], direction, amount[rest], value, mean)

    none = np.zeros(len(said))
    report(0.95, "Choosing the scale of the prediction")
    optim, constant = (
        kept(each, *optimised(before[held], direction, amount[held], each[held]))
        for each in (said, none)
    )
    norm = kept(said, *scaled(said[held], amount[held], pearson(said[held], amount[held])))
    return Ablation(neuron, norm, optim, constant, found.test, len(parts.test))


def _said(
    room: Room,
    question: Question,
    identity: Identity,
    found: Explanation,
    images: np.ndarray,
    report: Report,
) -> np.ndarray:
    """f64[n]: what an explanation says of these pictures."""
    made = bench(room, question, identity, question.args["concepts"], report)
    column = {name: at for at, name in enumerate(made.concepts.names)}
    chosen = np.array([column[name] for name, _ in found.terms], np.int64)
    weight = np.array([weight for _, weight in found.terms])
    return np.asarray(made.responses[np.ix_(images, chosen)] @ weight + found.bias)


KINDS = {"ablation": kept_effect}
