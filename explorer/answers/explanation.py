"""Answers about what signals mean: explanations, and how well they predict unseen pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.answers.concepts import Bench, bench, bench_of_terms, curve_of, respond
from explorer.answers.room import Room, neuron_of
from explorer.answers.signals import (
    Signals,
    neuron_signal,
    part_signal,
    split_of,
    virtual_signals,
)
from explorer.keys import Identity, Question
from explorer.lab import Report
from explorer.methods.linear_explanation import (
    Fit,
    Moments,
    Params,
    Targets,
    correlations,
    explain,
    moments,
    refit,
    targets,
)
from explorer.methods.params import read_params
from explorer.records import BadInput, Explanation, LayerExplanations
from explorer.scores.simulation import pearson, simulation

SURGERY = "surgery"
"""The method of explanations of parts of a channel that is divided in the weights."""
SHUFFLES = 20
"""Shuffled signals behind the null of one explanation; a layer uses one for each neuron."""
GROUP = 64
"""Neurons of a layer explained between two reports."""


@dataclass(frozen=True)
class Ground:
    """What a fit stands on: responses f32[n,M] of each split, with the moments of the first two,
    and the ids of the pictures."""

    names: tuple[str, ...]
    ids: tuple[np.ndarray, np.ndarray, np.ndarray]
    responses: tuple[np.ndarray, np.ndarray, np.ndarray]
    train: Moments
    validation: Moments

    def explain(self, values: np.ndarray, params: Params, forced: bool = False) -> Fit:
        """Explain signals f32[N,S]."""
        return explain(self.train, self.on(values, 0), self.validation, self.on(values, 1),
                       params, forced)  # fmt: skip

    def on(self, values: np.ndarray, part: int) -> Targets:
        """Signals f32[N,S] on the training (0) or validation (1) pictures."""
        of = self.validation if part else self.train
        return targets(self.responses[part], of, values[self.ids[part]])

    def predict(self, chosen: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
        """f64[n]: what an explanation says of the test pictures."""
        return np.asarray(self.responses[2][:, chosen] @ weight + bias)


def ground(found: Bench, known: np.ndarray) -> Ground:
    """The bench on the pictures where a signal is known, bool[N]."""
    parts = found.partition.within(known)
    ids = (parts.train, parts.validation, parts.test)
    whole = (found.partition.train, found.partition.validation)
    responses = tuple(found.responses[part] for part in ids)
    train, validation = (
        of if len(part) == len(every) else moments(rows)
        for of, part, every, rows in zip(
            (found.train, found.validation), ids, whole, responses, strict=False
        )
    )
    return Ground(found.concepts.names, ids, responses, train, validation)


def explanation(room: Room, question: Question, identity: Identity, report: Report) -> Explanation:
    """Explain one signal, or score the terms that were given for it."""
    args, neuron = question.args, neuron_of(question)
    typed = tuple(args["typed"])
    if typed:
        found = bench_of_terms(room, question, identity, args["concepts"], typed, report)
    else:
        found = bench(room, question, identity, args["concepts"], report)
    signals = signal(room, question, identity, report)
    report(0.96, "Searching concepts")
    base = ground(found, signals.known)
    values = signals.values
    if not _varying(base, values).all():
        raise BadInput(
            "The signal is the same on every picture of a split (training, validation or test), so "
            "there is nothing to explain: choose another neuron or more pictures."
        )
    chosen, weight, bias, validation, null = _fitted(base, values, args, bool(typed))
    names = tuple(base.names[at] for at in chosen)
    actual = values[base.ids[2], 0]
    predicted = base.predict(chosen, weight, bias)
    simulator = args["simulator"]
    if simulator:
        predicted = bias + weight @ _simulated(room, question, identity, names, base, report)
    return Explanation(
        neuron=neuron,
        pool=args["pool"],
        method=args["split"]["method"] if args["split"] else SURGERY * bool(args["surgery"]),
        virtual=args["virtual"],
        part=signals.name,
        terms=tuple(zip(names, map(float, weight), strict=True)),
        bias=bias,
        mode=args["concepts"]["mode"],
        considered=0 if typed else len(base.names),
        embedder=args["concepts"]["embedder"],
        simulator=simulator,
        validation=validation,
        test=simulation(predicted, actual),
        null=float(np.mean(null)),
        null_sd=float(np.std(null)),
        frequent=_frequent(base, actual),
        single=_single(base, values)[0],
        pictures=(len(base.ids[0]), len(base.ids[1]), len(base.ids[2])),
        left_out=int(sum(map(len, found.partition)) - sum(map(len, base.ids))),
        index=base.ids[2],
        actual=actual.astype(np.float32),
        predicted=np.asarray(predicted, np.float32),
    )


def signal(room: Room, question: Question, identity: Identity, report: Report) -> Signals:
    """The one signal that the question is about."""
    args, lab = question.args, room.lab(question, identity)
    if args["surgery"]:
        return part_signal(room, question, identity, args["surgery"], report)
    if not args["split"]:
        return neuron_signal(lab, neuron_of(question), args["pool"], report)
    found = split_of(room, question, identity, args["split"], report)
    virtual = args["virtual"]
    if not 0 <= virtual < found.k:
        raise BadInput(f"The split has virtual neurons 0 to {found.k - 1}, not {virtual}.")
    every = virtual_signals(lab, found, args["pool"], report)
    return Signals(every.values[:, virtual : virtual + 1], every.known)


def layer(room: Room, question: Question, identity: Identity, report: Report) -> LayerExplanations:
    """Explain many neurons of a layer; dead and constant ones are left out."""
    start = time.monotonic()
    args, lab = question.args, room.lab(question, identity)
    found = bench(room, question, identity, args["concepts"], report)
    scan = lab.scan(question.subject, report)
    base = ground(found, np.asarray(scan.valid))
    params = read_params(Params, args["params"])
    rows = scan.mean if args["pool"] == "mean" else scan.maximum
    channels = np.array(args["channels"], np.int32)
    parts: list[dict[str, Any]] = []
    for first in range(0, len(channels), GROUP):
        report(first / len(channels), f"Explaining neurons: {first:,} of {len(channels):,}")
        some = channels[first : first + GROUP]
        values = np.nan_to_num(np.asarray(rows[some], np.float32).T)
        alive = _varying(base, values)
        if alive.any():
            parts.append(_layer_part(base, values[:, alive], some[alive], params))
    if not parts:
        raise BadInput(f"Every neuron asked for in {question.subject} is dead or constant.")
    joined = {name: _joined([part[name] for part in parts]) for name in parts[0]}
    return LayerExplanations(
        layer=question.subject,
        pool=args["pool"],
        concepts=found.concepts,
        simulator="",
        dead=len(channels) - len(joined["channels"]),
        seconds=time.monotonic() - start,
        **joined,
    )


def _layer_part(
    base: Ground, values: np.ndarray, channels: np.ndarray, params: Params
) -> dict[str, Any]:
    """Fields of LayerExplanations for a few neurons with signals f32[N,S]."""
    count = values.shape[1]
    shuffled = np.concatenate([shuffle(base, values[:, [at]], 1, int(channel))
                               for at, channel in enumerate(channels)], axis=1)  # fmt: skip
    fit = base.explain(np.concatenate([values, shuffled], axis=1), params)
    singles = _single(base, values)
    both = np.concatenate([values, shuffled], axis=1)[base.ids[2]]
    test = [pearson(base.predict(*fit.terms(at), 0.0), both[:, at]) for at in range(2 * count)]
    terms = []
    for at in range(count):
        chosen, weight = fit.terms(at)
        names = (base.names[each] for each in chosen)
        terms.append(tuple(zip(names, map(float, weight), strict=True)))
    return {
        "channels": channels,
        "terms": tuple(terms),
        "bias": fit.bias[:count].astype(np.float32),
        "validation": fit.validation[:count].astype(np.float32),
        "test": np.array(test[:count], np.float32),
        "null": np.array(test[count:], np.float32),
        "frequent": np.array([_frequent(base, both[:, at])[1] for at in range(count)], np.float32),
        "single": np.array([value for _, value in singles], np.float32),
        "singles": tuple(name for name, _ in singles),
    }


def shuffle(base: Ground, values: np.ndarray, times: int, seed: int) -> np.ndarray:
    """f32[N,times]: one signal f32[N,1] with its values exchanged among the pictures of each
    split; concepts then know nothing of it."""
    generator = np.random.default_rng([7, seed])
    found = np.repeat(values[:, :1], times, axis=1)
    for column in range(times):
        for ids in base.ids:
            found[ids, column] = values[generator.permutation(ids), 0]
    return found


def _fitted(
    base: Ground, values: np.ndarray, args: Mapping[str, Any], typed: bool
) -> tuple[np.ndarray, np.ndarray, float, float, list[float]]:
    """Concepts, weights, bias, validation correlation, and test correlations of the null."""
    shuffled = shuffle(base, values, SHUFFLES, int(args["virtual"]) + 1)
    if typed:
        chosen = np.arange(len(base.names))
        weight, bias = refit(base.train, base.on(values, 0), chosen)
        said = base.responses[1][:, chosen] @ weight
        null = []
        for at in range(SHUFFLES):
            drawn, _ = refit(base.train, base.on(shuffled[:, [at]], 0), chosen)
            null.append(pearson(base.predict(chosen, drawn, 0), shuffled[base.ids[2], at]))
        return chosen, weight, bias, pearson(said, values[base.ids[1], 0]), null
    params = read_params(Params, args["params"])
    fit = base.explain(np.concatenate([values, shuffled], axis=1), params)
    chosen, weight = fit.terms(0)
    null = [
        pearson(base.predict(*fit.terms(1 + at), 0.0), shuffled[base.ids[2], at])
        for at in range(SHUFFLES)
    ]
    return chosen, weight, float(fit.bias[0]), float(fit.validation[0]), null


def _simulated(
    room: Room,
    question: Question,
    identity: Identity,
    names: Sequence[str],
    base: Ground,
    report: Report,
) -> np.ndarray:
    """f32[l,n]: responses of the test pictures to the terms, by the simulator."""
    args, spec = question.args["concepts"], question.args["simulator"]
    curve = curve_of(room, question, identity, args, spec, report)
    found = respond(room, question, identity, args, spec, names, curve, report)
    return np.asarray(found[base.ids[2]].T)


def _frequent(base: Ground, actual: np.ndarray) -> tuple[str, float]:
    """The concept that responds most on the training pictures, and its test correlation."""
    at = int(base.train.mean.argmax())
    return base.names[at], pearson(base.responses[2][:, at], actual)


def _single(base: Ground, values: np.ndarray) -> list[tuple[str, float]]:
    """For each signal f32[N,S] the concept of highest validation correlation by itself, and its
    test correlation."""
    best = correlations(base.validation, base.on(values, 1)).argmax(axis=0)
    return [
        (base.names[at], pearson(base.responses[2][:, at], values[base.ids[2], signal]))
        for signal, at in enumerate(best)
    ]


def _varying(base: Ground, values: np.ndarray) -> np.ndarray:
    """bool[S]: signals that vary on every split."""
    return np.asarray(np.all([np.ptp(values[ids], axis=0) > 0 for ids in base.ids], axis=0))


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return tuple(each for part in parts for each in part)


KINDS = {"explanation": explanation, "explanations": layer}
