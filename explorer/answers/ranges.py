"""Where in its range a neuron matters, and which concepts win there."""

from __future__ import annotations

import time

import numpy as np

from explorer.answers.concepts import Bench, bench
from explorer.answers.room import Room, neuron_of
from explorer.answers.signals import neuron_signal
from explorer.browse import highest
from explorer.compute.ablation import without, without_each
from explorer.compute.device_lab import DeviceLab
from explorer.keys import Identity, Question
from explorer.lab import Report
from explorer.records import BadInput, Neuron, RangeAnalysis, RangeShares
from explorer.scores.ablation import changes, combined, effects
from explorer.scores.simulation import range_shares

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


def shares(room: Room, question: Question, identity: Identity, report: Report) -> RangeShares:
    """Where in their ranges many neurons matter, over the same pictures drawn by lot. A neuron has
    no effect where it is zero."""
    start = time.monotonic()
    lab, args = room.lab(question, identity), question.args
    scan = lab.scan(question.subject, report)
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(scan.valid))[: args["pictures"]]
    index = np.sort(drawn)
    rows = scan.mean if args["pool"] == "mean" else scan.maximum
    value = np.stack([np.asarray(rows[channel, index], np.float32) for channel in args["channels"]])
    alive = np.ptp(value, axis=1) > 0
    if not alive.any():
        raise BadInput(f"Every neuron asked for in {question.subject} is dead or constant.")
    value, channels = value[alive], np.array(args["channels"], np.int32)[alive]
    effect = _effects(lab, question.subject, channels, index, value != 0, report)
    edges = np.linspace(value.min(axis=1), value.max(axis=1), STEPS + 1)
    step = np.clip((value[None] >= edges[:, :, None]).sum(axis=0) - 1, 0, STEPS - 1)
    inside = step == np.arange(STEPS)[:, None, None]
    magnitude = np.abs(effect)
    total = magnitude.sum(axis=1, keepdims=True)
    share = (magnitude * inside).sum(axis=2).T / np.where(total > 0, total, np.nan)
    top = [range_shares(*each, np.array(QUANTILES)) for each in zip(value, effect, strict=True)]
    return RangeShares(
        layer=question.subject,
        pool=args["pool"],
        channels=channels,
        quantiles=np.array(QUANTILES, np.float32),
        top=np.array(top, np.float32),
        share=share.astype(np.float32),
        pictures=inside.mean(axis=2).T.astype(np.float32),
        measured=len(index),
        dead=int((~alive).sum()),
        seconds=time.monotonic() - start,
    )


def _effects(
    lab: DeviceLab,
    layer: str,
    channels: np.ndarray,
    index: np.ndarray,
    fires: np.ndarray,
    report: Report,
) -> np.ndarray:
    """f64[S,n]: the effect of each channel i32[S] on each picture i64[n], measured where it fires
    (bool[S,n])."""
    first = np.zeros(len(index))
    lost, change = np.zeros(fires.shape, bool), np.zeros(fires.shape)
    for at, (pairs, before, after) in without_each(lab, layer, channels, index, fires, report):
        first[at : at + len(before)] = changes(before, before)[0]
        which, row = pairs
        _, lost[which, at + row], change[which, at + row] = changes(before[row], after)
    return combined(first, lost, change)


KINDS = {"ranges": ranges, "shares": shares}
