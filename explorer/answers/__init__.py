"""What computes each kind of question. Run by the worker, against the Lab, one at a time.

A new kind is one function here, ``(room, question, identity, report) -> record``, in the ``KINDS``
of the module of its subject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from explorer import questions
from explorer.answers import (
    ablation,
    candidates,
    concepts,
    explanation,
    layer,
    neuron,
    planted,
    ranges,
    split_test,
    surgery,
    truth,
    workspace,
)
from explorer.answers.room import Room
from explorer.compute.device import give_back
from explorer.keys import Identity, Question, key, question_from
from explorer.lab import Report
from explorer.networks.identity import identity as network_identity
from explorer.records import OutOfMemory
from explorer.settings import Settings
from explorer.store import Store

Answer = Callable[[Room, Question, Identity, Report], Any]

KINDS: dict[str, Answer] = {
    **workspace.KINDS,
    **neuron.KINDS,
    **layer.KINDS,
    **planted.KINDS,
    **concepts.KINDS,
    **explanation.KINDS,
    **ablation.KINDS,
    **ranges.KINDS,
    **split_test.KINDS,
    **surgery.KINDS,
    **candidates.KINDS,
    **truth.KINDS,
}


class Answers:
    """Callable as ``answers(kind, args, report)``: the record that answers a job, or None where
    it stored the answer itself. Raises OutOfMemory where memory runs out, though whatever works in
    batches makes them smaller first."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._room = Room(settings, store)
        self._warm = False

    def get_ready(self) -> bool:
        """A moment's work for what may be asked next; whether there is more to do."""
        if self._warm:
            return self._room.get_ready()
        self._warm = True
        self._load()
        return True

    def _load(self) -> None:
        """Load the first workspace's network where it was had before, so that nobody waits for
        that; nothing is downloaded unasked."""
        workspace = self._room.settings.workspaces[0]
        weights = network_identity(workspace.network, workspace.weights)
        if key(questions.network(workspace), questions.nothing_but(weights)) in self._room.store:
            self._room.shelf.network(workspace.network, workspace.weights)

    def rest(self) -> None:
        """Let others have the memory that the work so far needed."""
        give_back()

    def __call__(self, kind: str, args: Mapping[str, Any], report: Report) -> Any:
        question, identity = question_from(kind, args)
        try:
            return KINDS[kind](self._room, question, identity, report)
        except (RuntimeError, MemoryError) as error:
            if not OutOfMemory.told_by(error):
                raise
            raise OutOfMemory(
                "There is too little memory for this: close other programs, or ask for fewer "
                "pictures, neurons or concepts at a time."
            ) from error
