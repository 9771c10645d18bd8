"""Methods judged by what is known to be in the pictures: which concept drives which reference."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer.answers.layer import part, sample, split_of
from explorer.answers.room import Room
from explorer.images import concept_boxes
from explorer.keys import Identity, Question, query_from
from explorer.lab import Report
from explorer.methods.clustered import LARGEST_K
from explorer.records import (
    BadInput,
    Confusion,
    Neuron,
    NoCluster,
    References,
    Truth,
    TruthRow,
    Unavailable,
)
from explorer.scores.planted import average, confusion, recovery
from explorer.scores.truth import division, drives, present

KNOWN, AUTO = "known", "auto"


@dataclass(frozen=True)
class Judged:
    """One method at one k on one neuron."""

    ari: float
    chosen: int


def truth(room: Room, question: Question, identity: Identity, report: Report) -> Truth:
    """The tables. Every split is stored as if it was asked for by itself."""
    start = time.monotonic()
    lab = room.lab(question, identity)
    lab.scan(question.subject, report)
    contents = concept_boxes.read(Path(lab.images.root))
    channels, notice = sample(room, question, identity, report)
    trial = Trial(room, question, identity, contents)
    for at, channel in enumerate(channels.tolist()):
        trial.judge(channel, part(report, at, len(channels), f"neuron {channel}"))
    return trial.summary(channels, notice, time.monotonic() - start)


class Trial:
    """What is found of each neuron, in the order in which they are judged."""

    def __init__(
        self, room: Room, question: Question, identity: Identity, contents: concept_boxes.Contents
    ) -> None:
        self._about = room, question, identity
        self._question = question
        self._lab = room.lab(question, identity)
        self._args = question.args
        self._contents = contents
        self._drives: list[np.ndarray] = []
        self._cells: dict[tuple[str, str], dict[int, Judged]] = {}
        self._missing: dict[str, str] = {}

    def judge(self, channel: int, report: Report) -> None:
        """One neuron by every method: a polysemantic one at the known k and at the method's own,
        any other at the method's own alone."""
        question = self._question
        neuron = Neuron(question.workspace.name, question.subject, channel)
        query = query_from(self._args["references"])
        seen = self._seen(self._lab.references(neuron, query, report))
        shares = drives(seen, len(self._contents.names))
        concepts = present(shares, self._args["share"])
        known = division(seen, concepts)
        self._drives.append(shares)
        for method in self._args["methods"]:
            own = method["split"]
            asked = {AUTO: own} if method["chooses"] else {}
            if method["takes_k"] and len(concepts) > 1:
                asked[KNOWN] = {**own, "params": {**own["params"], "k": len(concepts)}}
            for k, args in asked.items():
                self._split(method["name"], k, channel, args, known, report)

    def summary(self, channels: np.ndarray, notice: str, seconds: float) -> Truth:
        """The tables. Raises Unavailable when no method could be used."""
        if not self._cells:
            why = next(iter(self._missing.values()), "no neuron of the sample could be divided.")
            raise Unavailable(f"Nothing could be judged: {why}")
        question = self._question
        shares = np.stack(self._drives)
        least = self._args["share"]
        concepts = np.array([len(present(each, least)) for each in shares], np.int32)
        nothing = Judged(float("nan"), 0)
        order = [
            (method["name"], k)
            for k in (KNOWN, AUTO)
            for method in self._args["methods"]
            if (method["name"], k) in self._cells
        ]
        cells = [
            [self._cells[name].get(channel, nothing) for channel in channels.tolist()]
            for name in order
        ]
        ari = np.array([[each.ari for each in cell] for cell in cells], np.float32)
        chosen = np.array([[each.chosen for each in cell] for cell in cells], np.int32)
        means = [average(values) for values in ari]
        return Truth(
            layer=question.subject,
            channels=channels,
            names=self._contents.names,
            drives=shares,
            concepts=concepts,
            share=least,
            references=query_from(self._args["references"]),
            rows=tuple(
                TruthRow(name, k, mean.value, mean.se, mean.n)
                for (name, k), mean in zip(order, means, strict=True)
            ),
            ari=ari,
            chosen=chosen,
            confusions=tuple(
                _confused(name, concepts, row)
                for (name, k), row in zip(order, chosen, strict=True)
                if k == AUTO
            ),
            missing=tuple(self._missing.items()),
            notice=notice,
            seconds=seconds,
        )

    def _split(
        self,
        name: str,
        k: str,
        channel: int,
        args: Mapping[str, Any],
        known: np.ndarray,
        report: Report,
    ) -> None:
        if name in self._missing:
            return
        try:
            split = split_of(*self._about, channel, args, report)
        except NoCluster:
            return
        except (BadInput, Unavailable) as error:
            self._missing[name] = str(error)
            return
        cell = self._cells.setdefault((name, k), {})
        cell[channel] = Judged(recovery(known, split.labels), split.k)

    def _seen(self, references: References) -> np.ndarray:
        """i64[K]: the number of the concept that drives each reference, -1 for none: what lies
        where the neuron is at its maximum."""
        layer = self._lab.network.layer(references.neuron.layer)
        preprocess = self._lab.network.preprocess
        high, wide = preprocess.crop / layer.height, preprocess.crop / layer.width
        rows, columns = np.divmod(references.position, layer.width)
        images = self._lab.images
        return np.array(
            [
                concept_boxes.concept_at(
                    self._contents,
                    Path(images.root),
                    images.paths[image],
                    preprocess,
                    ((column + 0.5) * wide, (row + 0.5) * high),
                    max(high, wide),
                )
                for image, row, column in zip(references.index, rows, columns, strict=True)
            ],
            np.int64,
        )


def _confused(method: str, concepts: np.ndarray, chosen: np.ndarray) -> Confusion:
    """Of the neurons that have a concept at all."""
    some = concepts > 0
    rows, counts = confusion(concepts[some], np.minimum(chosen[some], LARGEST_K), LARGEST_K)
    return Confusion(method, rows, counts)


KINDS = {"truth": truth}
