"""Builders of questions: what can be asked, under the field's names. No device, no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from explorer.browse import SINGULAR, check_query
from explorer.keys import Identity, Question
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.records import BadInput, Neuron, ReferenceQuery, Workspace

LONGEST_TEXT = 200


@dataclass(frozen=True)
class SplitQuestion:
    """One way of splitting one neuron."""

    neuron: Neuron
    method: str = "pure"
    params: Mapping[str, Any] = field(default_factory=dict)
    references: ReferenceQuery = ReferenceQuery()


def nothing_but(content: str) -> Identity:
    """The identity of a question that depends on one thing alone, neither network nor images."""
    return Identity(content, "")


def network(workspace: Workspace) -> Question:
    return Question("network", workspace, "", title=f"Loading {workspace.network}")


def images(workspace: Workspace, fingerprint: str) -> Question:
    args = {"fingerprint": fingerprint}
    return Question("images", workspace, "", args, f"Indexing the pictures of {workspace.images}")


def scan(workspace: Workspace, layers: Sequence[str]) -> Question:
    layers = sorted(set(layers))
    title = f"Scanning {layers[0]}" if len(layers) == 1 else f"Scanning {len(layers)} layers"
    return Question("scan", workspace, "", {"layers": layers}, title)


def table(workspace: Workspace, layer: str) -> Question:
    return Question("table", workspace, layer, {}, f"Reading the neurons of {layer}")


def crops(workspace: Workspace, neuron: Neuron, query: ReferenceQuery) -> Question:
    check_query(query)
    title = f"Finding where {neuron.address} looks"
    return Question("crops", workspace, neuron.address, {"references": asdict(query)}, title)


def split(workspace: Workspace, question: SplitQuestion) -> Question:
    args = _split_args(question)
    title = f"Splitting {question.neuron.address} by {method_named(question.method).title}"
    return Question("split", workspace, question.neuron.address, args, title)


def projection(workspace: Workspace, question: SplitQuestion) -> Question:
    args = _split_args(question)
    title = f"Drawing the map of {question.neuron.address}"
    return Question("projection", workspace, question.neuron.address, args, title)


def assignment(workspace: Workspace, question: SplitQuestion, query: ReferenceQuery) -> Question:
    """Which virtual neuron each image of ``query`` belongs to, under the split."""
    check_query(query)
    args = {"split": _split_args(question), "references": asdict(query)}
    title = f"Assigning pictures to the virtual neurons of {question.neuron.address}"
    return Question("assignment", workspace, question.neuron.address, args, title)


def alignment(
    workspace: Workspace, question: SplitQuestion, embedder: str, weights: str
) -> Question:
    """``embedder`` is one found usable; ``weights`` identifies its weights."""
    args = {"split": _split_args(question), "embedder": embedder, "weights": weights}
    title = f"Comparing the split of {question.neuron.address} with {embedder}"
    return Question("alignment", workspace, question.neuron.address, args, title)


def search(workspace: Workspace, layer: str, text: str, embedder: str, weights: str) -> Question:
    """Rank a layer by words; ``embedder`` and ``weights`` as in ``alignment``."""
    words = " ".join(text.split())
    if not words or len(words) > LONGEST_TEXT or not words.isprintable():
        raise BadInput(f"Search for 1 to {LONGEST_TEXT} readable characters.")
    args = {"text": words, "embedder": embedder, "weights": weights}
    return Question("search", workspace, layer, args, f"Searching {layer} for '{words[:40]}'")


def embedder(workspace: Workspace, spec: str) -> Question:
    return Question("embedder", workspace, "", {"spec": spec}, f"Looking for {spec}")


def figure(
    workspace: Workspace, recipe: Mapping[str, Any], form: str, embedder: str, weights: str
) -> Question:
    """``recipe`` is validated; ``embedder`` and ``weights`` as in ``alignment``."""
    args = {"recipe": dict(recipe), "format": form, "embedder": embedder, "weights": weights}
    return Question("figure", workspace, "", args, "Drawing the figure")


def _split_args(question: SplitQuestion) -> dict[str, Any]:
    """Arguments with every parameter spelled out, so that defaults and words share a key, and the
    references that the method divides when asked for those."""
    check_query(question.references)
    if question.references.by == SINGULAR:
        raise BadInput("Singular directions start concept vectors: set their parameter start.")
    method = method_named(question.method)
    params = read_params(method.Params, question.params)
    return {
        "method": method.name,
        "version": method.version,
        "params": asdict(params),
        "references": asdict(method.query(question.references, params)),
    }
