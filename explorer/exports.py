"""Answers as plain values: what the command line prints and what pages let people download."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from explorer.records import Evaluation, Planted, PlantedRow


def plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays as lists, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: Any) -> str:
    """The value as JSON text."""
    return json.dumps(plain(value), allow_nan=False, indent=1)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table with a header; what is not defined is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(row) for row in rows)
    return text.getvalue()


def evaluation(found: Evaluation, per_neuron: bool = False) -> dict[str, Any]:
    """A comparison of methods; ``per_neuron`` adds every neuron's values to each row."""
    rows = [asdict(row) | ({} if row.own else {"k": int(row.k)}) for row in found.rows]
    if per_neuron:
        for at, row in enumerate(rows):
            row |= {name: getattr(found, name)[at] for name in ("intra", "inter", "parts")}
    return {
        "layer": found.layer,
        "neurons": len(found.channels),
        "channels": found.channels,
        "references": asdict(found.references),
        "seed": found.seed,
        "rows": rows,
        "differences": [asdict(each) for each in found.differences],
        "judges": [asdict(judge) for judge in found.judges],
        "correlated": found.correlated,
        "missing": [{"name": name, "reason": why} for name, why in found.missing],
        "notice": found.notice,
        "seconds": found.seconds,
    }


def neurons(found: Evaluation) -> list[dict[str, Any]]:
    """The values behind the means of a comparison: one row per method, k, judge and neuron."""
    return [
        {
            "method": row.method,
            "k": int(found.parts[at, place]),
            "judge": row.judge,
            "neuron": f"{found.layer}:{channel}",
            "intra": float(found.intra[at, place]),
            "inter": float(found.inter[at, place]),
        }
        for at, row in enumerate(found.rows)
        for place, channel in enumerate(found.channels)
    ]


def planted(found: Planted, per_neuron: bool = False) -> dict[str, Any]:
    """Methods compared on planted channels. ``ceiling`` and ``random`` are the mean scores of the
    leaked sources and of labels drawn by lot, by kind; ``per_neuron`` adds every channel's."""
    rows = [asdict(row) for row in found.rows]
    if per_neuron:
        for at, row in enumerate(rows):
            row |= {name: getattr(found, name)[at] for name in ("known", "auto")}
    return {
        "layer": found.layer,
        "references": asdict(found.references),
        "seed": found.seed,
        "half": found.half,
        "join": found.join,
        "judge": found.judge,
        "possible": found.possible,
        "ceiling": {_kind(row): row.ari for row in found.rows if row.method == "ceiling"},
        "random": {_kind(row): row.ari for row in found.rows if row.method == "random"},
        "rows": rows,
        "confusion": [
            {**asdict(each), **{str(k): n for k, n in enumerate(each.counts, 1)}}
            for each in found.confusion
        ],
        **({"sums": [asdict(each) for each in found.sums]} if per_neuron else {}),
        "seconds": found.seconds,
    }


def plants(found: Planted) -> list[dict[str, Any]]:
    """The values behind the means: one row per method and planted channel."""
    return [
        {
            "method": row.method,
            "lower": row.lower,
            "regime": made.regime,
            "sources": "+".join(map(str, made.sources)),
            "mix": made.mix,
            "distance": made.distance,
            "ari": float(found.known[at, place]),
            "auto_ari": float(found.auto[at, place]),
        }
        for at, row in enumerate(found.rows)
        for place, made in enumerate(found.sums)
        if (made.regime, len(made.sources), made.mix) == (row.regime, row.groups, row.mix)
    ]


def _kind(row: PlantedRow) -> str:
    """What is planted, such as "near", "near, 3 sources" or "far, mix 0.5"."""
    more = f", {row.groups} sources" if row.groups != 2 else ""
    return f"{row.regime}{more}{f', mix {row.mix:g}' if row.mix != 1 else ''}"
