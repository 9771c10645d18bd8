"""Does splitting make a neuron easier to explain? Whole neurons against the sums of their parts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from explorer.answers.concepts import Bench, bench
from explorer.answers.explanation import Ground, ground
from explorer.answers.room import Room
from explorer.answers.signals import split_of, virtual_signals
from explorer.keys import Identity, Question
from explorer.lab import Report
from explorer.methods.linear_explanation import Params
from explorer.records import (
    BadInput,
    DeadNeuron,
    Neuron,
    NoCluster,
    Split,
    SplitTest,
    SplitTestRow,
)
from explorer.scores.alignment import standard_error
from explorer.scores.simulation import pearson

SCORES = ("whole", "parts", "k", "tested")
"""What is measured of a neuron divided by a method."""


def split_test(room: Room, question: Question, identity: Identity, report: Report) -> SplitTest:
    """Explain neurons whole and in parts, with as many terms, and compare on test pictures. All
    are split before any picture is assigned: assigning then reads the lower maps of the same
    pictures for one neuron after another, which stay in memory."""
    start = time.monotonic()
    args, lab = question.args, room.lab(question, identity)
    found = bench(room, question, identity, args["concepts"], report)
    divided = _divided(room, question, identity, report)
    among = np.zeros(len(lab.images), bool)
    among[found.partition.drawn(args["pictures"])] = True
    scores = np.full((len(SCORES), len(args["splits"]), len(args["channels"])), np.nan)
    for done, ((row, number), split) in enumerate(sorted(divided.items(), key=lambda it: it[0])):
        quiet = _within(report, 0.5 + 0.5 * done / len(divided))
        quiet(0.0, f"Explaining parts: {done:,} of {len(divided):,}")
        signals = virtual_signals(lab, split, "mean", quiet, True, among)
        try:
            scores[:, row, number] = _compared(found, signals.values, signals.known, args["length"])
        except BadInput:  # too few of the pictures are known, or it never varies
            continue
    rows = [_row(split["method"], scores[:, row]) for row, split in enumerate(args["splits"])]
    return SplitTest(
        layer=question.subject,
        channels=np.array(args["channels"], np.int32),
        rows=tuple(rows),
        whole=scores[0].astype(np.float32),
        parts=scores[1].astype(np.float32),
        length=args["length"],
        pictures=int(among.sum()),
        concepts=found.concepts,
        seconds=time.monotonic() - start,
    )


def _divided(
    room: Room, question: Question, identity: Identity, report: Report
) -> dict[tuple[int, int], Split]:
    """Splits by number of method and of neuron, those that have parts."""
    splits, channels = question.args["splits"], question.args["channels"]
    found = {}
    for number, channel in enumerate(channels):
        about = replace(question, subject=Neuron("", question.subject, channel).address)
        for row, args in enumerate(splits):
            quiet = _within(report, 0.5 * (number + row / len(splits)) / len(channels))
            quiet(0.0, f"Splitting neurons: {number:,} of {len(channels):,}")
            try:
                split = split_of(room, about, identity, args, quiet)
            except (DeadNeuron, NoCluster):
                continue
            if split.k > 1:
                found[row, number] = split
    return found


def _within(report: Report, done: float) -> Report:
    """Reports of a step do not move the bar."""

    def quiet(fraction: float, message: str) -> None:
        report(done, message)

    return quiet


def _compared(
    found: Bench, values: np.ndarray, known: np.ndarray, length: int
) -> tuple[float, float, int, int]:
    """SCORES of one neuron divided into signals f32[N,S] known on bool[N]. Whole and parts see the
    same pictures and use exactly as many terms, whatever these gain. Raises BadInput where too
    few pictures are known."""
    base = ground(found, known)
    count = values.shape[1]
    each = max(1, length // count)
    parts = _predicted(base, values, each)
    together = values.sum(axis=1, keepdims=True)
    whole = _predicted(base, together, each * count)
    actual = together[base.ids[2], 0]
    return pearson(whole, actual), pearson(parts, actual), count, len(actual)


def _predicted(base: Ground, values: np.ndarray, length: int) -> np.ndarray:
    """f64[n]: the summed predictions of signals f32[N,S], each explained with ``length`` terms.
    Signals that never vary in a split stay at their mean."""
    varying = np.flatnonzero(
        np.all([np.ptp(values[ids], axis=0) > 0 for ids in base.ids[:2]], axis=0)
    )
    predicted = np.full(len(base.ids[2]), values[base.ids[0]].mean(axis=0).sum(), np.float64)
    if varying.size:
        predicted -= values[base.ids[0]][:, varying].mean(axis=0).sum()
        fit = base.explain(values[:, varying], Params(length=length), forced=True)
        for at in range(varying.size):
            predicted += base.predict(*fit.terms(at), float(fit.bias[at]))
    return predicted


def _row(method: str, scores: np.ndarray) -> SplitTestRow:
    """Means over the neurons that were compared, from SCORES f64[4,M]."""
    whole, parts, k, tested = scores[:, np.isfinite(scores).all(axis=0)]

    def mean(values: Sequence[float] | np.ndarray) -> float:
        return float(np.mean(values)) if len(values) else float("nan")

    return SplitTestRow(
        method=method,
        whole=mean(whole),
        whole_se=standard_error(whole),
        parts=mean(parts),
        parts_se=standard_error(parts),
        difference=mean(parts - whole),
        difference_se=standard_error(parts - whole),
        k=mean(k),
        tested=mean(tested),
        n=len(whole),
    )


KINDS = {"split_test": split_test}
