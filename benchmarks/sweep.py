"""A sweep: the splits of many neurons of a layer, each with 100 references."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.options import Bench, Options, silent
from explorer import questions
from explorer.answers import layer as answers
from explorer.compute.device_lab import DeviceLab
from explorer.questions import SplitQuestion
from explorer.records import Neuron, ReferenceQuery, Sweep

UPPER, REFERENCES = "layer4", 100
KINDS = {
    "": ("layer3", "lrp"),
    "gradient_": ("layer3", "gradient"),
    "near_": ("layer4.1", "lrp"),
    "near_gradient_": ("layer4.1", "gradient"),
}
"""Lower layer and attribution."""


def measure(options: Options) -> dict[str, Any]:
    """Neurons a second after the layer's scan, from the pictures on disk to stored splits, and the
    minutes that the whole layer takes: measured with ``whole``, else as its part says."""
    bench = Bench(options)
    lab = bench.room.lab(bench.question("sweep", UPPER), bench.identity)
    channels = lab.network.layer(UPPER).channels
    neurons = channels if options.whole else 8 if options.quick else 64
    lab.scan(UPPER, silent)
    found: dict[str, Any] = {"sweep_neurons": neurons, "sweep_pictures": len(lab.images)}
    kinds = {"": KINDS[""]} if options.quick else KINDS
    for number, (kind, (lower, rule)) in enumerate(kinds.items()):
        first = 0 if options.whole else number * neurons
        wall, cpu = time.monotonic(), time.process_time()
        swept = sweep(bench, lab, lower, rule, (first, first + neurons - 1))
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        assert (swept.k == 2).any(), "neurons were split"
        found |= {
            f"sweep_{kind}neurons_per_second": neurons / wall,
            f"sweep_{kind}layer_minutes": wall / 60 * channels / neurons,
            f"sweep_{kind}layer_core_minutes": cpu / 60 * channels / neurons,
        }
    return found


def sweep(bench: Bench, lab: DeviceLab, lower: str, rule: str, channels: tuple[int, int]) -> Sweep:
    """PURE with two virtual neurons for a range of channels."""
    params = {"k": 2, "attribution": rule, "lower": lower}
    query = ReferenceQuery(count=REFERENCES)
    asked = SplitQuestion(Neuron("bench", UPPER, 0), "pure", params, query)
    layer = lab.network.layer(UPPER)
    question = questions.sweep(bench.workspace, asked, layer, channels)
    return answers.sweep(bench.room, question, bench.identity, silent)
