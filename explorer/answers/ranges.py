"""Answers about a neuron's whole range, and whether its parts are easier to explain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from explorer.answers.concepts import Bench, bench
from explorer.answers.explanation import Ground, explanation, ground
from explorer.answers.room import Room, neuron_of
from explorer.answers.signals import neuron_signal, split_of, virtual_signals
from explorer.browse import highest
from explorer.compute.ablation import without
from explorer.compute.device_lab import DeviceLab
from explorer.keys import Identity, Question
from explorer.lab import Report
from explorer.methods.linear_explanation import Params
from explorer.records import (
    Ablation,
    BadInput,
    Explanation,
    Neuron,
    NoCluster,
    RangeAnalysis,
    SplitTest,
    SplitTestRow,
)
from explorer.scores.ablation import ablation, effects, linear_part, scaled
from explorer.scores.alignment import standard_error
from explorer.scores.simulation import pearson, range_shares

STEPS = 8
"""Equal steps of a neuron's range."""
EXAMPLES, WINNERS = 6, 4
MEASURED = 1000
"""Pictures without the channel at most, evenly spaced by rank among those on which it fires."""
QUANTILES = (0.0003, 0.002, 0.005, 0.02, 0.1, 0.5)
"""The paper's: highest shares of all pictures."""


def ranges(room: Room, question: Question, identity: Identity, report: Report) -> RangeAnalysis:
    """Divide the neuron's range in equal steps: how much of its effect on the network's answers
    lies in each, which pictures, and which concepts respond there more than elsewhere."""
    lab, neuron, args = room.lab(question, identity), neuron_of(question), question.args
    found = bench(room, question, identity, args["concepts"], report)
    signal = neuron_signal(lab, neuron, args["pool"], report)
    value = np.where(signal.known, signal.values[:, 0], -np.inf)
    usable = np.flatnonzero(signal.known)
    edges = np.linspace(value[usable].min(), value.max(), STEPS + 1)
    step = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, STEPS - 1)
    step[~signal.known] = -1
    firing = usable[value[usable] != 0]
    firing = firing[np.argsort(-value[firing], kind="stable")]
    effect, measured = _effect(lab, neuron, firing, report)
    share = np.array([np.abs(effect[step == each]).sum() for each in range(STEPS)])
    examples = np.full((STEPS, EXAMPLES), -1, np.int64)
    for each in range(STEPS):
        best = highest(np.where(step == each, value, -np.inf), lab.images.sources, EXAMPLES)
        examples[each, : best.size] = best
    top = range_shares(value[usable], effect[usable], np.array(QUANTILES))
    return RangeAnalysis(
        neuron=neuron,
        pool=args["pool"],
        edges=edges.astype(np.float32),
        counts=np.array([(step == each).sum() for each in range(STEPS)]),
        share=(share / share.sum() if share.sum() > 0 else share * np.nan).astype(np.float32),
        examples=examples,
        concepts=tuple(_winners(found, step == each) for each in range(STEPS)),
        quantiles=np.array(QUANTILES, np.float32),
        top=top.astype(np.float32),
        measured=measured,
    )


def _effect(
    lab: DeviceLab, neuron: Neuron, firing: np.ndarray, report: Report
) -> tuple[np.ndarray, int]:
    """f64[N]: the effect on each picture, half by cross-entropy and half by answers kept, and on
    how many it was measured; between those it is spread by rank. Setting a channel to zero where
    it is zero changes nothing."""
    at = np.unique(np.linspace(0, len(firing) - 1, MEASURED).round().astype(int))
    own = effects(*without(lab, neuron, firing[at], report))
    effect = np.zeros(len(lab.images))
    effect[firing] = np.interp(np.arange(len(firing)), at, own)
    return effect, len(at)


def _winners(found: Bench, inside: np.ndarray) -> tuple[tuple[str, float], ...]:
    """The concepts that respond most in these pictures bool[N], beyond all pictures' mean."""
    if not inside.any():
        return ()
    every = np.concatenate(list(found.partition))
    more = found.responses[inside].mean(axis=0) - found.responses[every].mean(axis=0)
    best = np.argsort(-more, kind="stable")[:WINNERS]
    return tuple((found.concepts.names[at], float(more[at])) for at in best if more[at] > 0)


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
    factor, offset = scaled(said[held], amount[held], pearson(said[held], amount[held]))
    mean = float(amount[held].mean())
    score = ablation(before[rest], direction, amount[rest], factor * said[rest] + offset, mean)
    return Ablation(neuron, score, found.test, len(parts.test))


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


def split_test(room: Room, question: Question, identity: Identity, report: Report) -> SplitTest:
    """Explain neurons whole and in parts, with as many terms, and compare on test pictures."""
    start = time.monotonic()
    args = question.args
    found = bench(room, question, identity, args["concepts"], report)
    channels, splits = args["channels"], args["splits"]
    scores = np.full((2, len(splits), len(channels)), np.nan, np.float32)
    sizes = np.full((len(splits), len(channels)), np.nan)
    for number, channel in enumerate(channels):
        about = replace(question, subject=Neuron("", question.subject, channel).address)
        for row, split in enumerate(splits):
            done = (number + row / len(splits)) / len(channels)
            report(done, f"Comparing neurons: {number:,} of {len(channels):,}")

            def quiet(fraction: float, message: str, done: float = done) -> None:
                report(done, message)

            try:
                pair = _compared(room, about, identity, found, split, quiet)
            except (BadInput, NoCluster):
                continue
            scores[:, row, number], sizes[row, number] = pair[:2], pair[2]
    return SplitTest(
        layer=question.subject,
        channels=np.array(channels, np.int32),
        rows=tuple(
            _row(split["method"], scores[0, row], scores[1, row], sizes[row])
            for row, split in enumerate(splits)
        ),
        whole=scores[0],
        parts=scores[1],
        length=args["length"],
        pictures=args["pictures"],
        concepts=found.concepts,
        seconds=time.monotonic() - start,
    )


def _compared(
    room: Room,
    question: Question,
    identity: Identity,
    found: Bench,
    split: Mapping[str, Any],
    report: Report,
) -> tuple[float, float, int]:
    """Test correlations of one neuron whole and in parts, and in how many. Both see the same
    pictures and use exactly as many terms, whatever these gain. BadInput where it has one part."""
    lab = room.lab(question, identity)
    divided = split_of(room, question, identity, split, report)
    if divided.k < 2:
        raise BadInput("The neuron was not divided.")
    args = question.args
    signals = virtual_signals(lab, divided, "mean", args["pictures"], True, report)
    base = ground(found, signals.known)
    each = max(1, args["length"] // divided.k)
    parts = _predicted(base, signals.values, each)
    together = signals.values.sum(axis=1, keepdims=True)
    whole = _predicted(base, together, each * divided.k)
    actual = together[base.ids[2], 0]
    return pearson(whole, actual), pearson(parts, actual), divided.k


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


def _row(method: str, whole: np.ndarray, parts: np.ndarray, k: np.ndarray) -> SplitTestRow:
    kept = np.isfinite(whole) & np.isfinite(parts)
    one, two = whole[kept].astype(np.float64), parts[kept].astype(np.float64)

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else float("nan")

    return SplitTestRow(
        method=method,
        whole=mean(one),
        whole_se=standard_error(one),
        parts=mean(two),
        parts_se=standard_error(two),
        difference=mean(two - one),
        difference_se=standard_error(two - one),
        k=mean(k[kept]),
        n=int(kept.sum()),
    )


KINDS = {"ranges": ranges, "ablation": kept_effect, "split_test": split_test}
