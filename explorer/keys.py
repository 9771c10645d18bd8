"""Questions and their keys: readable text plus a digest of everything the answer depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from explorer.records import SCHEMA, BadInput, ReferenceQuery, Workspace

VERSIONS: dict[str, int] = {
    "network": 1,
    "images": 1,
    "scan": 3,
    "table": 1,
    "crops": 1,
    "relevance": 1,
    "split": 1,
    "projection": 2,
    "assignment": 1,
    "embedder": 1,
    "embedding": 1,
    "alignment": 1,
    "search": 1,
    "figure": 1,
    "directions": 1,
    "distances": 1,
    "ranking": 1,
    "sweep": 1,
    "evaluation": 1,
    "concepts": 3,
    "explanation": 3,
    "explanations": 3,
    "ranges": 2,
    "shares": 1,
    "ablation": 3,
    "split_test": 3,
    "maker": 1,
    "class_relevance": 2,
    "candidates": 3,
    "incision": 2,
    "surgery": 2,
    "edited": 2,
    "parts": 1,
    "truth": 1,
    "plants": 1,
    "divided": 1,
    "planted": 1,
    "planted_figure": 1,
}
"""Every kind of question; raise a number when the answers of that kind change."""

BATCH = frozenset(
    {
        *(
            "scan",
            "sweep",
            "evaluation",
            "concepts",
            "explanations",
            "ranges",
            "shares",
            "ablation",
            "split_test",
        ),
        *("candidates", "surgery", "truth", "planted", "planted_figure"),
    }
)
"""Kinds that run behind interactive questions and outlive the tab that asked."""


@dataclass(frozen=True)
class Question:
    """``kind`` of answer wanted about a ``subject`` (a layer, a neuron, or "") of a workspace.

    ``args`` is JSON: with the workspace, everything the worker needs to compute the answer.
    """

    kind: str
    workspace: Workspace
    subject: str
    args: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""

    def __post_init__(self) -> None:
        if self.kind not in VERSIONS:
            raise BadInput(f"There is no question of kind '{self.kind}'.")


@dataclass(frozen=True)
class Identity:
    """What a workspace is made of, by content: its network with weights, and its pictures."""

    network: str
    images: str

    @property
    def scans(self) -> str:
        """The name of the folder that holds this network's scans of these pictures."""
        return digest(self.network, self.images, VERSIONS["scan"])


def digest(*parts: Any) -> str:
    """32 hexadecimal digits of the parts' canonical JSON; equal parts, equal digest."""
    text = json.dumps(parts, sort_keys=True, default=_plain, allow_nan=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def key(question: Question, identity: Identity) -> str:
    """``kind:workspace:subject:digest``; the digest covers identity, arguments and versions."""
    whole = digest(SCHEMA, VERSIONS[question.kind], identity, question.subject, question.args)
    parts = (question.kind, question.workspace.name, question.subject, whole)
    return ":".join(part for part in parts if part)


def begun(name: str) -> str:
    """The key of what is there of an answer before all of it is."""
    return f"{name}:begun"


def job_args(question: Question, identity: Identity) -> dict[str, Any]:
    """What travels to the worker as JSON; ``question_from`` reads it back."""
    return {
        "workspace": asdict(question.workspace),
        "subject": question.subject,
        "args": json.loads(json.dumps(question.args, default=_plain)),
        "identity": asdict(identity),
    }


def question_from(kind: str, args: Mapping[str, Any]) -> tuple[Question, Identity]:
    """The question and the identity it was asked under, from a job's arguments."""
    fields = dict(args["workspace"])
    workspace = Workspace(**(fields | {"layers": tuple(fields["layers"])}))
    question = Question(kind, workspace, args["subject"], args["args"])
    return question, Identity(**args["identity"])


def query_from(args: Mapping[str, Any]) -> ReferenceQuery:
    """The reference query inside a question's arguments; BadInput on unknown fields."""
    try:
        return ReferenceQuery(**args)
    except TypeError as error:
        raise BadInput("References take the fields by, range, count and seed.") from error


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a key")
