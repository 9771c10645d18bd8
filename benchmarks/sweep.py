"""A sweep: the splits of many neurons of a layer, each with 100 references."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.options import Bench, Options, silent
from explorer import questions
from explorer.answers import layer as answers
from explorer.questions import SplitQuestion
from explorer.records import Neuron, ReferenceQuery

LOWER, UPPER = "layer3", "layer4"
NEURONS = {True: 16, False: 256}


def measure(options: Options) -> dict[str, Any]:
    """Neurons a second after the layer's scan, from the pictures on disk to stored splits."""
    bench = Bench(options)
    found: dict[str, Any] = {}
    lab = bench.room.lab(bench.question("sweep", UPPER), bench.identity)
    layer = lab.network.layer(UPPER)
    lab.scan(UPPER, silent)
    query = ReferenceQuery(count=100)
    for number, rule in enumerate(("gradient", "lrp")):
        first = number * NEURONS[options.quick]
        params = {"k": 2, "attribution": rule, "lower": LOWER}
        asked = SplitQuestion(Neuron("bench", UPPER, 0), "pure", params, query)
        channels = first, first + NEURONS[options.quick] - 1
        question = questions.sweep(bench.workspace, asked, layer, channels)
        start = time.monotonic()
        answers.sweep(bench.room, question, bench.identity, silent)
        spent = time.monotonic() - start
        name = "sweep_neurons_per_second" if rule == "lrp" else "sweep_gradient_neurons_per_second"
        found[name] = NEURONS[options.quick] / spent
    return found | {"sweep_neurons": NEURONS[options.quick], "sweep_pictures": len(lab.images)}
