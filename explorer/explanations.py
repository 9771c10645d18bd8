"""Questions about what signals mean: part of the Backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np

from explorer import embedders, operations, questions
from explorer.concepts import hierarchy, labels, lists
from explorer.desk import Asker, Desk, OpenedLayer
from explorer.explaining import (
    DRAWN,
    LABELS,
    LIST,
    MEASURED,
    Concepts,
    ExplainQuestion,
    fit_args,
    numbered,
    pooling,
    signal_args,
)
from explorer.keys import Question
from explorer.methods.linear_explanation import Params
from explorer.methods.params import read_params
from explorer.questions import SplitQuestion
from explorer.records import (
    Ablation,
    BadInput,
    ConceptSet,
    EmbedderInfo,
    Explanation,
    LayerExplanations,
    Neuron,
    RangeAnalysis,
    RangeShares,
    SplitTest,
    Status,
)

T = TypeVar("T", Ablation, Explanation, LayerExplanations, RangeAnalysis, SplitTest)
Embedder = Callable[[str, Asker, str], EmbedderInfo | Status]


class Explanations:
    """Asks for explanations; what they need first (scan, embeddings of all pictures) comes back
    as the Status of the job that makes it."""

    def __init__(self, desk: Desk, embedder: Embedder) -> None:
        self._desk = desk
        self._embedder = embedder
        self._sources: dict[str, str] = {}

    def concepts(
        self, ws: str, layer: str, concepts: Concepts, asker: Asker
    ) -> ConceptSet | Status:
        """The concepts that fire on the training pictures, ready to explain with."""
        opened = self._desk.open_layer(ws, layer, asker)
        if isinstance(opened, Status):
            return opened
        args = self._args(opened, concepts, asker)
        return args if isinstance(args, Status) else self._concepts(opened, args[0], asker)

    def explanation(self, question: ExplainQuestion, asker: Asker) -> Explanation | Status:
        """The signal as a few weighted concepts, scored on unseen pictures."""
        return self._about("explanation", question, asker, Explanation)

    def ablation(self, question: ExplainQuestion, asker: Asker) -> Ablation | Status:
        """How much of the neuron's effect on the network's answers the explanation keeps; for
        layers that only pooling and one linear layer follow."""
        if question.typed or question.split or question.simulator or question.operations:
            raise BadInput("The ablation score is about a whole neuron and its own explanation.")
        return self._about("ablation", question, asker, Ablation)

    def _about(
        self, kind: str, question: ExplainQuestion, asker: Asker, what: type[T]
    ) -> T | Status:
        opened = self._opened(question, asker)
        if isinstance(opened, Status):
            return opened
        concepts = question.concepts
        if question.typed:
            concepts = replace(concepts, mode=LIST, terms=())
        found = self._args(opened, concepts, asker)
        if isinstance(found, Status):
            return found
        args, notice = found
        made = self._concepts(opened, args, asker)
        if isinstance(made, Status):
            return made
        if question.simulator:
            simulator = self._embedder(question.neuron.workspace, asker, question.simulator)
            if isinstance(simulator, Status):
                return simulator
            notice = " ".join(filter(None, (notice, simulator.notice)))
            question = replace(question, simulator=simulator.used)
        subject = question.neuron.address
        asked = Question(
            kind,
            opened.workspace,
            subject,
            {"concepts": args, **signal_args(opened.workspace, question), **fit_args(question)},
            f"Explaining {subject}" + (" in your words" if question.typed else ""),
        )
        return self._noticed(opened, asked, asker, what, notice)

    def _opened(self, question: ExplainQuestion, asker: Asker) -> OpenedLayer | Status:
        """The layer of the neuron; a channel that an operation divides may be one that an earlier
        operation made."""
        neuron = question.neuron
        if not question.operations:
            return self._desk.open_neuron(neuron, asker)
        opened = self._desk.open_layer(neuron.workspace, neuron.layer, asker)
        if isinstance(opened, OpenedLayer):
            operations.report(opened.workspace, question.operations, operations.PICTURES)
            for each in question.operations:
                operations.check(each, opened.images)
        return opened

    def layer(
        self,
        ws: str,
        layer: str,
        channels: Sequence[int],
        concepts: Concepts,
        params: Mapping[str, Any],
        asker: Asker,
        pool: str = "mean",
    ) -> LayerExplanations | Status:
        """Explanations of many neurons of a layer (none named: all of them)."""
        more = {"params": asdict(read_params(Params, params)), "pool": pooling(pool)}
        return self._layer(
            "explanations", ws, layer, channels, concepts, more, asker, LayerExplanations
        )

    def ranges(
        self, neuron: Neuron, concepts: Concepts, asker: Asker, pool: str = "mean"
    ) -> RangeAnalysis | Status:
        """Where in its range the neuron matters, and which concepts win there."""
        opened = self._desk.open_neuron(neuron, asker)
        if isinstance(opened, Status):
            return opened
        found = self._args(opened, concepts, asker)
        if isinstance(found, Status):
            return found
        args = {"concepts": found[0], "pool": pooling(pool)}
        title = f"Taking out {neuron.address}"
        asked = Question("ranges", opened.workspace, neuron.address, args, title)
        return self._noticed(opened, asked, asker, RangeAnalysis, found[1])

    def shares(
        self,
        ws: str,
        layer: str,
        channels: Sequence[int],
        asker: Asker,
        pool: str = "mean",
        pictures: int = MEASURED,
    ) -> RangeShares | Status:
        """Where in their ranges many neurons of a layer matter, over ``pictures`` drawn by lot."""
        if not 50 <= pictures <= 100_000:
            raise BadInput("The table of ranges takes 50 to 100,000 pictures.")
        opened = self._desk.open_layer(ws, layer, asker)
        if isinstance(opened, Status):
            return opened
        wanted = numbered(opened.layer, channels)
        args = {"channels": wanted, "pool": pooling(pool), "pictures": pictures}
        title = f"Taking out {len(wanted):,} neurons of {opened.layer.name}"
        asked = Question("shares", opened.workspace, opened.layer.name, args, title)
        return self._desk.ask(asked, opened.identity, asker, RangeShares)

    def split_test(
        self,
        ws: str,
        layer: str,
        channels: Sequence[int],
        methods: Mapping[str, Mapping[str, Any]],
        concepts: Concepts,
        asker: Asker,
        length: int = 10,
        pictures: int = DRAWN,
    ) -> SplitTest | Status:
        """Whole neurons against the sums of their virtual neurons, with as many terms. Each of
        ``methods`` maps to its parameters; fit and test see ``pictures`` drawn by lot, the same
        for every neuron and method."""
        if not 2 <= length <= 30 or not 50 <= pictures <= 100_000:
            raise BadInput("The split test takes 2 to 30 terms and 50 to 100,000 pictures.")
        splits = [
            questions.split(
                self._desk.settings.workspace(ws), SplitQuestion(Neuron(ws, layer, 0), name, given)
            ).args
            for name, given in methods.items()
        ]
        more = {"splits": splits, "length": length, "pictures": pictures}
        return self._layer("split_test", ws, layer, channels, concepts, more, asker, SplitTest)

    def _layer(
        self,
        kind: str,
        ws: str,
        layer: str,
        channels: Sequence[int],
        concepts: Concepts,
        more: Mapping[str, Any],
        asker: Asker,
        what: type[T],
    ) -> T | Status:
        opened = self._desk.open_layer(ws, layer, asker)
        if isinstance(opened, Status):
            return opened
        wanted = numbered(opened.layer, channels)
        found = self._args(opened, concepts, asker)
        if isinstance(found, Status):
            return found
        made = self._concepts(opened, found[0], asker)
        if isinstance(made, Status):
            return made
        title = f"Explaining {len(wanted):,} neurons of {opened.layer.name}"
        args = {"concepts": found[0], "channels": wanted, **more}
        asked = Question(kind, opened.workspace, opened.layer.name, args, title)
        return self._noticed(opened, asked, asker, what, found[1])

    def _concepts(
        self, opened: OpenedLayer, args: Mapping[str, Any], asker: Asker
    ) -> ConceptSet | Status:
        asked = Question("concepts", opened.workspace, "", args, "Finding concepts in the pictures")
        return self._desk.ask(asked, opened.identity, asker, ConceptSet)

    def _args(
        self, opened: OpenedLayer, concepts: Concepts, asker: Asker
    ) -> tuple[dict[str, Any], str] | Status:
        """What describes the concepts to the worker, and a notice to show. The list itself is
        filed in the store, under its digest."""
        if concepts.mode not in (LABELS, LIST):
            raise BadInput(f"Explain with {LABELS} or a {LIST}, not '{concepts.mode[:40]}'.")
        args: dict[str, Any] = {
            "mode": concepts.mode,
            "source": self._source(opened) if concepts.mode == LABELS else "",
            "unreadable": np.flatnonzero(~np.asarray(opened.scan.valid)).tolist(),
            "embedder": "",
        }
        if concepts.mode == LABELS:
            return args, ""
        info = self._embedder(opened.workspace.name, asker, concepts.embedder)
        if isinstance(info, Status):
            return info
        if not info.texts:
            raise BadInput(
                f"{info.title} embeds pictures only: explain with {LABELS}, or choose an embedder "
                "that reads text too."
            )
        terms = concepts.terms or lists.shipped()
        name = lists.digest(terms)
        if f"terms:{name}" not in self._desk.store and not self._desk.settings.read_only:
            self._desk.store.put(f"terms:{name}", terms)
        weights = embedders.identity(info.used)
        return args | {"embedder": info.used, "weights": weights, "list": name}, info.notice

    def _source(self, opened: OpenedLayer) -> str:
        """Where larger kinds of the labels come from: a file beside the pictures, looked at anew,
        or what is found once for each set of pictures."""
        if given := hierarchy.source(opened.images):
            return given
        name = opened.images.digest
        if name not in self._sources:
            data = self._desk.settings.data_dir
            self._sources[name] = labels.source_of(opened.images, data)
        return self._sources[name]

    def _noticed(
        self, opened: OpenedLayer, asked: Question, asker: Asker, what: type[T], notice: str
    ) -> T | Status:
        answer = self._desk.ask(asked, opened.identity, asker, what)
        return answer if isinstance(answer, Status) else replace(answer, notice=notice)
