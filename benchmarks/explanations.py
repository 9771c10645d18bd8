"""Linear explanations: one neuron, and a whole layer, over many pictures and concepts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.options import Options
from explorer.answers.concepts import Bench
from explorer.answers.explanation import SHUFFLES, Ground, ground, shuffle
from explorer.concepts.partition import partition
from explorer.methods.linear_explanation import Params, moments
from explorer.records import ConceptSet

PICTURES, CONCEPTS = 10_000, 2_000
CHANNELS = {True: 256, False: 1_280}
ROUNDS = {True: 3, False: 7}
PLANTED = 4
"""Concepts that make up each signal."""


def measure(options: Options) -> dict[str, Any]:
    """Seconds to explain signals planted in 10,000 pictures by 2,000 concepts, as the worker does
    once the concepts' responses are at hand: one neuron with the 20 shuffled signals of its null,
    and the neurons of a layer with one each; and how many of the planted concepts are found."""
    random = np.random.default_rng(0)
    channels = CHANNELS[options.quick]
    responses = random.beta(0.4, 4.0, (PICTURES, CONCEPTS)).astype(np.float32)
    truth = random.permuted(np.tile(np.arange(CONCEPTS), (channels, 1)), axis=1)[:, :PLANTED]
    signals = np.stack([responses[:, chosen].sum(axis=1) for chosen in truth], axis=1)
    signals += 0.2 * random.standard_normal(signals.shape).astype(np.float32)
    start = time.monotonic()
    base = _ground(responses)
    found: dict[str, Any] = {"explanations_concepts_seconds": time.monotonic() - start}
    spent = []
    for number in range(ROUNDS[options.quick]):
        one = signals[:, [number]]
        start = time.monotonic()
        base.explain(np.concatenate([one, shuffle(base, one, SHUFFLES, 1)], axis=1), Params())
        spent.append(time.monotonic() - start)
    start = time.monotonic()
    null = np.concatenate([shuffle(base, signals[:, [at]], 1, at) for at in range(channels)], 1)
    fit = base.explain(np.concatenate([signals, null], axis=1), Params())
    found["explanations_layer_seconds"] = time.monotonic() - start
    hits = [np.isin(truth[at], fit.terms(at)[0]).mean() for at in range(channels)]
    low, middle, high = np.percentile(spent, [25, 50, 75])
    return found | {
        "explanations_neuron_seconds": float(middle),
        "explanations_neuron_seconds_low": float(low),
        "explanations_neuron_seconds_high": float(high),
        "explanations_layer_neurons": channels,
        "explanations_found_share": float(np.mean(hits)),
        "explanations_pictures": PICTURES,
        "explanations_concepts": CONCEPTS,
    }


def _ground(responses: np.ndarray) -> Ground:
    """What fits stand on, from responses f32[N,M]: the splits and the moments of the concepts."""
    total, concepts = responses.shape
    hashes = np.random.default_rng(1).integers(0, 2**64, total, np.uint64)
    parts = partition(hashes, np.arange(total))
    names = tuple(f"concept {number}" for number in range(concepts))
    sizes = (len(parts.train), len(parts.validation), len(parts.test))
    info = ConceptSet("list", names, concepts, "", "", 1.0, 0.0, False, sizes)
    train, validation = (moments(responses[part]) for part in (parts.train, parts.validation))
    return ground(Bench(info, parts, responses, train, validation), np.ones(total, bool))
