"""A sweep: the splits of many neurons of a layer, each with 100 references."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import Bench, Options, silent
from explorer import questions
from explorer.answers import layer as answers
from explorer.compute import grouped
from explorer.compute.device_lab import DeviceLab
from explorer.compute.lower_maps import DISK_GB, LowerMaps
from explorer.compute.views import Views
from explorer.questions import SplitQuestion
from explorer.records import Neuron, ReferenceQuery, Sweep
from explorer.store import Store

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
    minutes that the whole layer takes: measured with ``whole``, else as its part says. ``whole``
    also measures LRP where the lower maps are on disk, as another sweep has left them."""
    bench = Bench(options)
    lab = scanned(bench)
    channels = lab.network.layer(UPPER).channels
    neurons = channels if options.whole else 8 if options.quick else 64
    found: dict[str, Any] = {"sweep_neurons": neurons, "sweep_pictures": len(lab.images)}
    kinds = {"": KINDS[""]} if options.quick else KINDS
    for number, (kind, (lower, rule)) in enumerate(kinds.items()):
        first = 0 if options.whole else number * neurons
        forget(bench, lab)
        wall, cpu = timed(bench, lab, lower, rule, (first, first + neurons - 1))
        found |= {
            f"sweep_{kind}neurons_per_second": neurons / wall,
            f"sweep_{kind}layer_minutes": wall / 60 * channels / neurons,
            f"sweep_{kind}layer_core_minutes": cpu / 60 * channels / neurons,
        }
        if options.whole and rule == "lrp":
            again = Bench(options)
            kept = scanned(again)
            make_lower_maps(kept, lower)
            wall, _ = timed(again, kept, lower, rule, (0, neurons - 1))
            found[f"sweep_{kind}at_hand_layer_minutes"] = wall / 60
    return found


def scanned(bench: Bench) -> DeviceLab:
    """The Lab of a workspace whose layer is scanned."""
    lab = bench.room.lab(bench.question("sweep", UPPER), bench.identity)
    lab.scan(UPPER, silent)
    return lab


def forget(bench: Bench, lab: DeviceLab) -> None:
    """Lower maps that were made before are no longer at hand."""
    folder = Path(tempfile.mkdtemp(dir=bench.room.settings.cache_dir))
    views = Views(bench.images, lambda: lab.model)
    lab.maps = LowerMaps(views.inputs, Store(folder, DISK_GB), bench.identity.scans)


def make_lower_maps(lab: DeviceLab, lower: str) -> None:
    """Have the lower maps of all pictures on disk."""
    count = len(lab.images)
    make = grouped.making(lab.model, lab.maps, (lower, UPPER), count)
    for first in range(0, count, grouped.AHEAD):
        make(np.arange(first, min(first + grouped.AHEAD, count)))


def timed(
    bench: Bench, lab: DeviceLab, lower: str, rule: str, channels: tuple[int, int]
) -> tuple[float, float]:
    """Seconds on the clock and of the processor that a sweep takes."""
    wall, cpu = time.monotonic(), time.process_time()
    swept = sweep(bench, lab, lower, rule, channels)
    assert (swept.k == 2).any(), "neurons were split"
    return time.monotonic() - wall, time.process_time() - cpu


def sweep(bench: Bench, lab: DeviceLab, lower: str, rule: str, channels: tuple[int, int]) -> Sweep:
    """PURE with two virtual neurons for a range of channels."""
    params = {"k": 2, "attribution": rule, "lower": lower}
    query = ReferenceQuery(count=REFERENCES)
    asked = SplitQuestion(Neuron("bench", UPPER, 0), "pure", params, query)
    layer = lab.network.layer(UPPER)
    question = questions.sweep(bench.workspace, asked, layer, channels)
    return answers.sweep(bench.room, question, bench.identity, silent)
