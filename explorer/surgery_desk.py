"""What pages and commands ask of channel surgery: ``Backend.surgery``."""

from __future__ import annotations

from collections.abc import Sequence

from explorer import operations
from explorer.desk import Asker, Desk
from explorer.operations import Operation, Wanted
from explorer.records import Candidates, EditedNetwork, Maker, Status, SurgeryReport


class SurgeryDesk:
    """Answers as those of ``Backend``: a record, or the Status of the job that makes it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def maker(self, ws: str, layer: str, asker: Asker) -> Maker | Status:
        """What makes the channels of a layer (a browsable one, or a module path)."""
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        question = operations.maker(opened.workspace, layer)
        return self._desk.ask(question, opened.identity, asker, Maker)

    def candidates(
        self, ws: str, layer: str, wanted: Wanted, asker: Asker, start: bool = True
    ) -> Candidates | Status | None:
        """Channels that serve unlike things; None where they are not known and not to ``start``
        being looked for."""
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        question = operations.candidates(opened.workspace, layer, wanted)
        if not start:
            return self._desk.known(question, opened.identity, asker, Candidates)
        return self._desk.ask(question, opened.identity, asker, Candidates)

    def report(
        self,
        ws: str,
        listed: Sequence[Operation],
        asker: Asker,
        pictures: int = operations.PICTURES,
        start: bool = True,
    ) -> SurgeryReport | Status | None:
        """Operations in order, judged; None as in ``candidates``."""
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        for each in listed:
            operations.check(each, opened.images)
        question = operations.report(opened.workspace, listed, pictures)
        if not start:
            return self._desk.known(question, opened.identity, asker, SurgeryReport)
        return self._desk.ask(question, opened.identity, asker, SurgeryReport)

    def edited(self, ws: str, listed: Sequence[Operation], asker: Asker) -> EditedNetwork | Status:
        """The edited network as files."""
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        question = operations.edited(opened.workspace, listed)
        return self._desk.ask(question, opened.identity, asker, EditedNetwork)
