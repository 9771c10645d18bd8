"""What a method of splitting neurons is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.lab import Lab, Report
from explorer.records import ReferenceQuery, References, Split


def as_asked(query: ReferenceQuery, params: Any) -> ReferenceQuery:
    """The references that were asked for."""
    return query


def one_by_one(lab: Lab, references: Sequence[References], params: Any, report: Report) -> None:
    """Nothing is gained by working on several neurons together."""


@dataclass(frozen=True)
class Method:
    """One way of splitting a neuron into virtual neurons.

    ``Params`` is a frozen dataclass of ``option`` fields. ``rows(lab, references, params,
    report)`` gives f32[K,D], one row per reference, and the space they lie in; ``split`` turns
    them into virtual neurons; ``assign(rows, split)`` says to which of them other rows belong
    (labels i64[K]) and how undecided that is (f32[K], 0 certain to 1). ``query(query, params)``
    says which references it divides when asked for some. ``prepare(lab, references, params,
    report)`` computes what the rows of many neurons need, where that is less work together.
    ``clusters`` says that ``split`` is ``explorer.methods.clustered.cluster`` of the rows.
    Raise ``version`` whenever any of them changes its numbers.
    """

    name: str
    title: str
    citation: str
    summary: str
    version: int
    Params: type[Any]
    rows: Callable[[Lab, References, Any, Report], tuple[np.ndarray, str]]
    split: Callable[[Lab, References, Any, Report], Split]
    assign: Callable[[np.ndarray, Split], tuple[np.ndarray, np.ndarray]]
    query: Callable[[ReferenceQuery, Any], ReferenceQuery] = as_asked
    prepare: Callable[[Lab, Sequence[References], Any, Report], None] = one_by_one
    clusters: bool = False
