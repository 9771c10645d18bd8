"""Relevance of one neuron for 100 references, between layers of ResNet50."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.interleaved import interleave, spread
from benchmarks.options import Bench, Options, silent
from explorer.compute.device_lab import DeviceLab
from explorer.records import Neuron, ReferenceQuery, References

REFERENCES = 100
PAIRS = {"near": ("layer4.1", "layer4"), "": ("layer3", "layer4")}
"""Lower and upper layer: within layer4, and over the whole of it, which is PURE's pair."""


def measure(options: Options) -> dict[str, Any]:
    """Milliseconds for a neuron not asked before, on pictures whose lower maps are there (``_ms``)
    or not even decoded (``_cold_ms``)."""
    bench = Bench(options)
    warm = bench.lab()
    numbers = iter(range(10_000))
    variants: dict[str, Callable[[], Any]] = {}
    for short, (lower, upper) in PAIRS.items():
        for rule in ("gradient", "lrp"):
            name = "_".join(part for part in ("relevance", short, rule) if part)

            def ask(
                lab: DeviceLab, lower: str = lower, upper: str = upper, rule: str = rule
            ) -> None:
                asked = references(lab, upper, next(numbers))
                lab.relevance(asked, lab.network.layer(lower), rule, silent)

            variants[f"{name}_ms"] = lambda ask=ask: ask(warm)
            if not short:
                variants[f"{name}_cold_ms"] = lambda ask=ask: ask(bench.lab())
    found = interleave(variants, 3 if options.quick else 7)
    return {k: v for name, each in found.items() for k, v in spread(name, 1000 * each).items()}


def references(lab: DeviceLab, layer: str, channel: int) -> References:
    """The first pictures, as references of a channel."""
    index = np.arange(REFERENCES) % len(lab.images)
    value, position = np.ones(REFERENCES, np.float32), np.zeros(REFERENCES, np.int64)
    query = ReferenceQuery(count=REFERENCES)
    return References(Neuron("bench", layer, channel), query, index, value, position)
