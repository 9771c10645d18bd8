"""Explanations as the fields that ``explain`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from explorer.records import (
    Ablation,
    Explanation,
    LayerExplanations,
    RangeAnalysis,
    RangeShares,
    SplitTest,
)


def neuron_of(found: Explanation) -> dict[str, Any]:
    """One explanation with its scores."""
    return {
        "neuron": found.neuron.address,
        "virtual": None if found.virtual < 0 else found.virtual,
        "method": found.method,
        "part": found.part,
        "pool": found.pool,
        "terms": [{"concept": name, "weight": weight} for name, weight in found.terms],
        "bias": found.bias,
        "test_correlation": found.test.value,
        "test_low": found.test.low,
        "test_high": found.test.high,
        "null_correlation": found.null,
        "null_sd": found.null_sd,
        "validation_correlation": found.validation,
        "single_concept": found.single[0],
        "single_correlation": found.single[1],
        "frequent_concept": found.frequent[0],
        "frequent_correlation": found.frequent[1],
        "n_train": found.pictures[0],
        "n_validation": found.pictures[1],
        "n_test": found.test.n,
        "left_out": found.left_out,
        "concepts": found.mode,
        "considered": found.considered,
        "embedder": found.embedder,
        "simulator": found.simulator,
        "notice": found.notice,
    }


def ablation_of(found: Ablation) -> dict[str, Any]:
    """How much of the neuron's effect one explanation keeps."""
    return {
        "ablation": found.norm,
        "ablation_optim": found.optim,
        "ablation_constant": found.constant,
        "ablation_n": found.n,
    }


def layer_of(found: LayerExplanations) -> dict[str, Any]:
    """Means over the neurons of a layer, and each of them."""
    summary: dict[str, Any] = {"layer": found.layer, "pool": found.pool}
    lengths = np.array([len(terms) for terms in found.terms])
    for name, values in (
        ("test_correlation", found.test),
        ("null_correlation", found.null),
        ("single_correlation", found.single),
        ("frequent_correlation", found.frequent),
        ("length", lengths),
    ):
        summary |= _averaged(name, values)
    made = found.concepts
    return summary | {
        "n": len(found.channels),
        "dead": found.dead,
        "n_train": made.pictures[0],
        "n_validation": made.pictures[1],
        "n_test": made.pictures[2],
        "concepts": made.mode,
        "considered": len(made.names),
        "given": made.given,
        "larger_kinds": made.source.partition(":")[0],
        "scale": made.scale,
        "offset": made.offset,
        "fitted": made.fitted,
        "embedder": made.embedder,
        "seconds": found.seconds,
        "notice": found.notice,
        "neurons": _rows(found),
    }


def _rows(found: LayerExplanations) -> list[dict[str, Any]]:
    return [
        {
            "channel": int(channel),
            "test_correlation": float(found.test[at]),
            "null_correlation": float(found.null[at]),
            "single_correlation": float(found.single[at]),
            "frequent_correlation": float(found.frequent[at]),
            "length": len(found.terms[at]),
            "explanation": " + ".join(f"{w:.2g} {name}" for name, w in found.terms[at]),
            "terms": [{"concept": name, "weight": weight} for name, weight in found.terms[at]],
            "bias": float(found.bias[at]),
            "single_concept": found.singles[at],
        }
        for at, channel in enumerate(found.channels)
    ]


def ranges_of(found: RangeAnalysis) -> dict[str, Any]:
    """Where in its range one neuron matters."""
    steps = zip(found.edges[:-1], found.edges[1:], found.counts, found.share, found.concepts,
                strict=True)  # fmt: skip
    return {
        "neuron": found.neuron.address,
        "pool": found.pool,
        "ranges": [
            {
                "low": float(low),
                "high": float(high),
                "pictures": int(count),
                "effect": float(share),
                "wins": ", ".join(name for name, _ in names),
                "concepts": [{"concept": name, "more": more} for name, more in names],
            }
            for low, high, count, share, names in steps
        ],
        "top": [
            {"quantile": float(part), "effect": float(share)}
            for part, share in zip(found.quantiles, found.top, strict=True)
        ],
        "measured": found.measured,
        "notice": found.notice,
    }


def shares_of(found: RangeShares) -> dict[str, Any]:
    """Where in their ranges neurons of a layer matter, on average."""
    steps = range(found.share.shape[1])
    return {
        "layer": found.layer,
        "pool": found.pool,
        "neurons": len(found.channels),
        "dead": found.dead,
        "measured": found.measured,
        "top": [
            {"quantile": float(part)} | _averaged("effect", found.top[:, at])
            for at, part in enumerate(found.quantiles)
        ],
        "steps": [
            {"step": step + 1}
            | _averaged("effect", found.share[:, step])
            | _averaged("pictures", found.pictures[:, step])
            for step in steps
        ],
        "channels": found.channels.tolist(),
        "seconds": found.seconds,
    }


def split_test_of(found: SplitTest) -> dict[str, Any]:
    """Whole neurons against their parts, by method; ``over_random``: the difference beyond that of
    parts drawn by lot, of the same neurons."""
    gains = found.parts - found.whole
    lots = [at for at, row in enumerate(found.rows) if row.method == "random"]
    null = gains[lots[0]] if lots else np.full(len(found.channels), np.nan)
    return {
        "layer": found.layer,
        "length": found.length,
        "pictures": found.pictures,
        "neurons": len(found.channels),
        "rows": [
            asdict(row) | _averaged("over_random", gain - null)
            for row, gain in zip(found.rows, gains, strict=True)
        ],
        "concepts": found.concepts.mode,
        "embedder": found.concepts.embedder,
        "seconds": found.seconds,
        "notice": found.notice,
    }


def _averaged(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean over the neurons where it is known, with its standard error."""
    known = values[np.isfinite(values)].astype(np.float64)
    several = len(known) > 1
    error = np.std(known, ddof=1) / np.sqrt(len(known)) if several else np.nan
    return {name: float(np.mean(known)) if known.size else np.nan, f"{name}_se": float(error)}
