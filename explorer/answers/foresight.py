"""Neurons that are split one after another: the rows of the next are divided by processes beside
this one while the last is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from explorer.answers.neuron import rows_of
from explorer.answers.room import Room
from explorer.compute.beside import Beside, helpers
from explorer.compute.device import threads
from explorer.keys import Identity, Question, key
from explorer.lab import Report
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.records import DeadNeuron, Neuron, NoCluster

FEWEST, MOST = 16, 8
"""Neurons for which processes are started, and how many of those at most."""


@contextmanager
def foreseeing(
    room: Room,
    question: Question,
    identity: Identity,
    channels: Sequence[int],
    args: Mapping[str, Any],
) -> Iterator[Callable[[int, Report], None]]:
    """Inside, what is given is to be called with the place of the channel that is split next."""
    count = min(threads(), MOST)
    if count < 2 or len(channels) < FEWEST or not method_named(args["method"]).clusters:
        yield lambda at, report: None
        return
    waiting = list(enumerate(channels))
    with helpers(count) as beside:

        def foresee(at: int, report: Report) -> None:
            while waiting and waiting[0][0] < at + count:
                _, channel = waiting.pop(0)
                address = Neuron(question.workspace.name, question.subject, channel).address
                about = replace(question, kind="split", subject=address, args=args)
                with suppress(DeadNeuron, NoCluster):
                    _begin(beside, room, about, identity, report)

        yield foresee


def _begin(
    beside: Beside, room: Room, question: Question, identity: Identity, report: Report
) -> None:
    if key(question, identity) in room.store:
        return
    params: Any = read_params(method_named(question.args["method"]).Params, question.args["params"])
    rows = rows_of(room, question, identity, question.args, report)
    if np.count_nonzero(rows.any(axis=1)) >= max(1, params.k):
        beside.begin(rows, params.k, params.seed)
