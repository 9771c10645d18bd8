"""What can be asked about meaning: concepts, signals, and settings of the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from explorer import questions
from explorer.concepts import lists
from explorer.methods.linear_explanation import Params
from explorer.methods.params import read_params
from explorer.operations import Operation
from explorer.questions import SplitQuestion
from explorer.records import BadInput, Layer, Neuron, Workspace

LABELS, LIST = "labels", "list"
POOLS = ("mean", "max")
MOST_TYPED = 20
DRAWN, MEASURED = 800, 1000
"""Pictures of the split test and of the ranges of a layer, the same for all neurons."""


@dataclass(frozen=True)
class Concepts:
    """What to explain with: the pictures' "labels", or a "list" of ``terms`` (empty: the one that
    comes along) read by ``embedder`` ("" = the workspace's own)."""

    mode: str = LIST
    terms: tuple[str, ...] = ()
    embedder: str = ""


@dataclass(frozen=True)
class ExplainQuestion:
    """One signal to explain: of a neuron (``pool`` "mean" or "max" over space); of virtual neuron
    ``virtual`` of a ``split`` of it; or, after surgical ``operations`` of which the last divides
    it, of part ``virtual`` (-1: of the undivided channel, as its own layer computes it). ``typed``
    terms are scored instead of searching. Test responses come from the embedder ``simulator``
    where one is named."""

    neuron: Neuron
    concepts: Concepts = Concepts()
    pool: str = "mean"
    params: Mapping[str, Any] = field(default_factory=dict)
    split: SplitQuestion | None = None
    virtual: int = -1
    typed: tuple[str, ...] = ()
    simulator: str = ""
    operations: tuple[Operation, ...] = ()


def numbered(layer: Layer, channels: Sequence[int]) -> list[int]:
    """The channels asked for of a layer, in order; none named: all."""
    last = layer.channels - 1
    wanted = sorted(set(map(int, channels))) or list(range(last + 1))
    if wanted[0] < 0 or wanted[-1] > last:
        raise BadInput(f"Layer {layer.name} has channels 0 to {last}: name some of those.")
    return wanted


def signal_args(workspace: Workspace, question: ExplainQuestion) -> dict[str, Any]:
    """What describes the signal to the worker. Raises BadInput for one that there is not."""
    split = None
    if question.split is not None:
        if question.split.neuron != question.neuron:
            raise BadInput("A virtual neuron is explained beside its own neuron: name that one.")
        if question.virtual < 0:
            raise BadInput("Name the virtual neuron to explain, 0 or more.")
        split = questions.split(workspace, question.split).args
    if question.operations:
        if split or question.operations[-1].neuron != question.neuron.address:
            raise BadInput("A part is explained of the channel that the last operation divides.")
        if question.virtual < -1:
            raise BadInput("Name the part to explain, 0 or more.")
    return {
        "pool": pooling(question.pool),
        "split": split,
        "surgery": [each.text for each in question.operations],
        "virtual": question.virtual if split or question.operations else -1,
    }


def fit_args(question: ExplainQuestion) -> dict[str, Any]:
    """What describes the search to the worker."""
    typed = lists.read("\n".join(question.typed)) if question.typed else ()
    if len(typed) > MOST_TYPED:
        raise BadInput(f"Write {MOST_TYPED} concepts at most, not {len(typed)}.")
    return {
        "params": asdict(read_params(Params, question.params)),
        "typed": list(typed),
        "simulator": question.simulator,
    }


def pooling(pool: str) -> str:
    """``pool`` where it is one; else BadInput."""
    if pool not in POOLS:
        raise BadInput(f"A neuron's signal is its {' or '.join(POOLS)} over space, not '{pool}'.")
    return pool
