"""Answers about many neurons of a layer: sweeps, and comparisons of methods."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from explorer import browse, questions
from explorer.answers import neuron
from explorer.answers.ahead import answer_ahead
from explorer.answers.foresight import foreseeing
from explorer.answers.room import Room
from explorer.answers.workspace import FALLBACK_SECONDS
from explorer.keys import Identity, Question, key, query_from
from explorer.lab import Report
from explorer.methods.method import one_by_one
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.records import (
    BadInput,
    DeadNeuron,
    EmbedderInfo,
    Evaluation,
    LayerTable,
    Neuron,
    NoCluster,
    Split,
    Sweep,
    Unavailable,
)
from explorer.scores.evaluation import LEAST_NEURONS, Measured, differences, measure, summarise

TOGETHER = 0.9
"""The share of a sweep that is spent on what neurons share, where they do."""


def sweep(room: Room, question: Question, identity: Identity, report: Report) -> Sweep:
    """The same split of many neurons, each stored as if it was asked for by itself."""
    start = time.monotonic()
    args = question.args["split"]
    first, last = question.args["channels"]
    channels = np.arange(first, last + 1, dtype=np.int32)
    k = np.zeros(len(channels), np.int32)
    silhouette, stability = (np.full(len(channels), np.nan, np.float32) for _ in range(2))
    if method_named(args["method"]).prepare is one_by_one:
        answer_ahead(room, question, identity, channels.tolist(), [args], sweep_part, report)
    with room.sharing(room.lab(question, identity)):
        done = prepare(room, question, identity, channels.tolist(), args, report)
    rest = between(report, done, 1.0)
    with foreseeing(room, question, identity, channels.tolist(), args) as foresee:
        for at, channel in enumerate(channels.tolist()):
            now = part(rest, at, len(channels), f"neuron {channel}")
            foresee(at, now)
            try:
                split = split_of(room, question, identity, channel, args, now)
            except DeadNeuron:
                k[at] = -1
            except NoCluster:
                continue
            else:
                k[at] = split.k
                silhouette[at] = split.scores.get("silhouette", np.nan)
                stability[at] = split.scores.get("stability", np.nan)
    return Sweep(
        layer=question.subject,
        method=args["method"],
        version=args["version"],
        params=args["params"],
        references=query_from(args["references"]),
        channels=channels,
        k=k,
        silhouette=silhouette,
        stability=stability,
        seconds=time.monotonic() - start,
    )


def prepare(
    room: Room,
    question: Question,
    identity: Identity,
    channels: Sequence[int],
    args: Mapping[str, Any],
    report: Report,
) -> float:
    """What a method computes for many neurons at once, for those whose split is not stored. Answers
    which share of the whole work that was."""
    lab, method = room.lab(question, identity), method_named(args["method"])
    lab.scan_layers([question.subject], report, lab.cluster)
    waiting = []
    for channel in channels:
        neuron = Neuron(question.workspace.name, question.subject, channel)
        about = replace(question, kind="split", subject=neuron.address, args=args)
        if key(about, identity) not in room.store:
            with suppress(DeadNeuron):
                query = query_from(args["references"])
                waiting.append(lab.references(neuron, query, report))
    share = 0.0 if not waiting or method.prepare is one_by_one else TOGETHER
    params = read_params(method.Params, args["params"])
    method.prepare(lab, waiting, params, between(report, 0.0, share))
    return share


def evaluation(
    room: Room, question: Question, identity: Identity, report: Report
) -> Evaluation | None:
    """Methods compared on a sample of neurons. One with a hole is stored here, for a while only."""
    lab = room.lab(question, identity)
    before = Counter(lab.clock.seconds)
    lab.scan(question.subject, report)
    channels, notice = sample(room, question, identity, report)
    splits = [split for method in question.args["methods"] for split in method["splits"]]
    about = room, question, identity
    answer_ahead(*about, channels.tolist(), splits, evaluation_part, report)
    comparison = Comparison(room, question, identity, len(channels))
    for at, channel in enumerate(channels.tolist()):
        now = part(report, at, len(channels), f"neuron {channel}")
        comparison.measure(at, channel, now)
    with lab.clock.stage("scoring"):
        found = comparison.summary(channels, notice)
    spent = {name: lab.clock.seconds[name] - before[name] for name in lab.clock.seconds}
    found = replace(found, seconds={name: spent for name, spent in spent.items() if spent > 0})
    if not found.missing:
        return found
    room.store.put(key(question, identity), found, FALLBACK_SECONDS)
    return None


def sweep_part(room: Room, question: Question, identity: Identity, report: Report) -> None:
    """The splits of the channels ``question.args["only"]``."""
    for channel in question.args["only"]:
        with suppress(DeadNeuron, NoCluster):
            split_of(room, question, identity, channel, question.args["split"], report)


def evaluation_part(room: Room, question: Question, identity: Identity, report: Report) -> None:
    """Whatever a comparison needs of the channels ``question.args["only"]``."""
    channels = question.args["only"]
    comparison = Comparison(room, question, identity, len(channels))
    for at, channel in enumerate(channels):
        comparison.measure(at, channel, report)


class Comparison:
    """What is measured of each neuron: a cell per method, k (0: the method's own) and judge."""

    def __init__(self, room: Room, question: Question, identity: Identity, neurons: int) -> None:
        self._room = room
        self._question = question
        self._identity = identity
        self._neurons = neurons
        self._lab = room.lab(question, identity)
        self._missing: dict[str, str] = {}
        self._cells: dict[tuple[str, str, int], list[Measured | None]] = {}
        self._judges = [judge["name"] for judge in question.args["judges"]]
        with self._lab.clock.stage("embedding"):
            self._infos = [info for name in self._judges if (info := self._open(name))]

    def measure(self, at: int, channel: int, report: Report) -> None:
        """One neuron, by everything that is not missing yet."""
        for method in self._question.args["methods"]:
            for args in method["splits"]:
                if method["name"] in self._missing:
                    break
                try:
                    with self._lab.clock.stage("clustering"):
                        about = self._room, self._question, self._identity
                        split = split_of(*about, channel, args, report)
                except (DeadNeuron, NoCluster):
                    continue
                except (BadInput, Unavailable) as error:
                    self._missing[method["name"]] = str(error)
                else:
                    self._judge(at, channel, method["name"], split, report)

    def summary(self, channels: np.ndarray, notice: str) -> Evaluation:
        """The tables. Raises Unavailable when there is nothing to put into them."""
        if not self._cells:
            why = next(iter(self._missing.values()), "no neuron of the sample could be divided.")
            raise Unavailable(f"Nothing could be compared: {why}")
        args = self._question.args
        cells = {
            (judge, name, k): self._cells[judge, name, k]
            for judge in self._judges
            for name in (method["name"] for method in args["methods"])
            for k in (*args["ks"], 0)
            if (judge, name, k) in self._cells
        }
        rows = [
            summarise(name, k, judge, cell, args["seed"])
            for (judge, name, k), cell in cells.items()
        ]
        intra, inter, parts = (
            np.array([[getattr(each, name, np.nan) for each in cell] for cell in cells.values()])
            for name in ("intra", "inter", "parts")
        )
        return Evaluation(
            layer=self._question.subject,
            channels=channels,
            judges=tuple(self._infos),
            references=query_from(args["references"]),
            seed=args["seed"],
            rows=tuple(rows),
            differences=differences(rows, inter - intra, args["ks"]),
            intra=intra.astype(np.float32),
            inter=inter.astype(np.float32),
            parts=np.nan_to_num(parts).astype(np.int32),
            correlated="subsets" if len(channels) >= LEAST_NEURONS else "neurons",
            missing=tuple(self._missing.items()),
            notice=notice,
            seconds={},
        )

    def _judge(self, at: int, channel: int, name: str, split: Split, report: Report) -> None:
        lab = self._lab
        method = method_named(split.method)
        crops = lab.crops(split.references.neuron, split.references.query, report)
        k = int(split.params.get("k", 0))
        with lab.clock.stage("scoring"):
            params = read_params(method.Params, split.params)
            rows, _ = method.rows(lab, split.references, params, report)
            for judge in self._judges:
                if judge in self._missing:
                    continue
                try:
                    embeddings = lab.embed(judge, crops.index, crops.box, report)
                except (BadInput, Unavailable) as error:
                    self._missing[judge] = str(error)
                    continue
                seed = (self._question.args["seed"], channel)
                cell = self._cells.setdefault((judge, name, k), [None] * self._neurons)
                cell[at] = measure(rows, embeddings, split.labels, seed)

    def _open(self, judge: str) -> EmbedderInfo | None:
        """The judge as found on this machine; no stand-in, which would be another judge."""
        try:
            embedder = self._room.shelf.embedder(judge)
        except (BadInput, Unavailable) as error:
            self._missing[judge] = str(error)
            return None
        return EmbedderInfo(judge, judge, embedder.title, "", embedder.texts_too)


def sample(
    room: Room, question: Question, identity: Identity, report: Report
) -> tuple[np.ndarray, str]:
    """The channels i32[M] of a random sample of living neurons, ascending, and a sentence where
    there are fewer than wanted. A smaller sample is part of every larger one."""
    lab = room.lab(question, identity)
    table = room.kept(
        questions.table(question.workspace, question.subject),
        identity,
        LayerTable,
        lambda: browse.table(lab.scan(question.subject, report), lab.images),
    )
    alive, wanted = np.flatnonzero(table.alive), question.args["neurons"]
    if not alive.size:
        raise DeadNeuron(f"No neuron of {question.subject} fires on these pictures.")
    drawn = np.random.default_rng(question.args["seed"]).permutation(alive)[:wanted]
    few = f"{question.subject} has only {alive.size} living neurons: all of them are compared."
    return np.sort(drawn).astype(np.int32), few if alive.size < wanted else ""


def split_of(
    room: Room,
    question: Question,
    identity: Identity,
    channel: int,
    args: Mapping[str, Any],
    report: Report,
) -> Split:
    """The split of one neuron of the layer in question, stored under its own key."""
    address = Neuron(question.workspace.name, question.subject, channel).address
    about = replace(question, kind="split", subject=address, args=args)
    return room.kept(about, identity, Split, lambda: neuron.split(room, about, identity, report))


def between(report: Report, start: float, end: float) -> Report:
    """Report on a part of the work that leads from one fraction of it to another."""
    return lambda fraction, message: report(start + (end - start) * fraction, message)


def part(report: Report, at: int, count: int, what: str) -> Report:
    """Report on one of ``count`` equal parts; begins by saying so, which lets others go first."""

    def within(fraction: float, message: str) -> None:
        parts = (f"{at + 1} of {count}, {what}", message)
        report(at / count, " · ".join(part for part in parts if part))

    within(0.0, "")
    return within


KINDS = {"sweep": sweep, "evaluation": evaluation}
