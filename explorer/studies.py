"""Questions about many neurons, and about all pictures: part of the Backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from explorer import benchmark, embedders, questions
from explorer.desk import Asker, Desk
from explorer.images import concept_boxes
from explorer.keys import Identity, Question
from explorer.questions import SplitQuestion, Study, TruthStudy
from explorer.records import (
    BadInput,
    Distances,
    EmbedderInfo,
    Evaluation,
    FigureFile,
    Planted,
    Planting,
    Ranking,
    Status,
    Sweep,
    Truth,
    Workspace,
)

Embedder = Callable[[str, Asker, str], EmbedderInfo | Status]


class Studies:
    """Answers as those of the Backend."""

    def __init__(self, desk: Desk, embedder: Embedder) -> None:
        self._desk = desk
        self._embedder = embedder

    def sweep(
        self, question: SplitQuestion, asker: Asker, channels: tuple[int, int] | None = None
    ) -> Sweep | Status:
        """The same split of every neuron of the layer, or of channels ``first`` to ``last``."""
        opened = self._desk.open_layer(question.neuron.workspace, question.neuron.layer, asker)
        if isinstance(opened, Status):
            return opened
        asked = questions.sweep(opened.workspace, question, opened.layer, channels)
        return self._desk.ask(asked, opened.identity, asker, Sweep)

    def title(self, judge: str) -> str:
        """An embedder's name to show."""
        return embedders.title(judge) if judge else "the workspace's own"

    def judges(self, ws: str) -> dict[str, str]:
        """Embedders to offer as judges, by name, with their titles: the workspace's own first."""
        workspace = self._desk.settings.workspace(ws)
        features = f"network:{embedders.CONSE_NETWORK}@{embedders.CONSE_WEIGHTS}"
        names = dict.fromkeys([workspace.embedder, embedders.CONSE, features])
        return {
            name: embedders.title(name)
            for name in names
            if embedders.parse(name).model != workspace.network or name == workspace.embedder
        }

    def evaluation(self, ws: str, study: Study, asker: Asker) -> Evaluation | Status:
        """Methods compared on a sample of a layer's neurons."""
        asked = self._evaluation(ws, study, asker)
        return asked if isinstance(asked, Status) else self._desk.ask(*asked, asker, Evaluation)

    def known_evaluation(self, ws: str, study: Study, asker: Asker) -> Evaluation | Status | None:
        """The same, or None where nobody asked for it yet; starts nothing."""
        asked = self._evaluation(ws, study, asker)
        return asked if isinstance(asked, Status) else self._desk.known(*asked, asker, Evaluation)

    def _evaluation(
        self, ws: str, study: Study, asker: Asker
    ) -> tuple[Question, Identity] | Status:
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        opened.network.layer(study.layer)
        if not study.judges:
            info = self._embedder(ws, asker, "")
            if isinstance(info, Status):
                return info
            study = replace(study, judges=(info.used,))
        return questions.evaluation(opened.workspace, study), opened.identity

    def truth(self, ws: str, study: TruthStudy, asker: Asker) -> Truth | Status:
        """Methods judged by what is known to be in the pictures."""
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        layer = opened.network.layer(study.layer)
        if layer.height * layer.width < 2:
            raise BadInput(
                f"{layer.name} has no map, so what drives its neurons is not known: choose a layer "
                "with a map."
            )
        concept_boxes.read(Path(opened.images.root))
        return self._desk.ask(
            questions.truth(opened.workspace, study), opened.identity, asker, Truth
        )

    def planted(self, ws: str, asked: Planting, asker: Asker) -> Planted | Status:
        """Methods compared on channels that are planted in a layer, so that the truth is known."""
        study = self._planted(ws, asked, asker)
        return study if isinstance(study, Status) else self._desk.ask(*study, asker, Planted)

    def known_planted(self, ws: str, asked: Planting, asker: Asker) -> Planted | Status | None:
        """The same, or None where nobody asked for it yet; starts nothing."""
        study = self._planted(ws, asked, asker)
        return study if isinstance(study, Status) else self._desk.known(*study, asker, Planted)

    def planted_figure(
        self, recipe: Mapping[str, Any], form: str, asker: Asker
    ) -> FigureFile | Status:
        """The figure of such a comparison; ``recipe`` is validated."""
        from explorer.figures.planted import planting

        study = self._planted(recipe["workspace"], planting(recipe), asker)
        if isinstance(study, Status):
            return study
        question, identity = study
        drawn = benchmark.figure(question, recipe, form)
        return self._desk.ask(drawn, identity, asker, FigureFile)

    def _planted(
        self, ws: str, asked: Planting, asker: Asker
    ) -> tuple[Question, Identity] | Status:
        opened = self._desk.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        layer = opened.network.layer(asked.layer)
        for name in filter(None, asked.lowers):
            opened.network.layer(name)
        info = self._embedder(ws, asker, asked.judge)
        if isinstance(info, Status):
            return info
        question = benchmark.planted(opened.workspace, replace(asked, judge=info.used), layer)
        return question, opened.identity

    def ranking(
        self, question: SplitQuestion, virtual: int, count: int, asker: Asker
    ) -> Ranking | Status:
        """All scanned images along the direction of one virtual neuron."""

        def build(workspace: Workspace) -> Question:
            return questions.ranking(workspace, question, virtual, count)

        return self._desk.ask_about(question.neuron, asker, build, Ranking)

    def distances(
        self, question: SplitQuestion, asker: Asker, embedder: str = ""
    ) -> Distances | Status:
        """Pairs of references, by the rows of a split and by an embedder."""
        info = self._embedder(question.neuron.workspace, asker, embedder)
        if isinstance(info, Status):
            return info
        weights = embedders.identity(info.used)

        def build(workspace: Workspace) -> Question:
            return questions.distances(workspace, question, info.used, weights)

        return self._desk.ask_about(question.neuron, asker, build, Distances)
