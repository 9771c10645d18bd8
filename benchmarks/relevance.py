"""Relevance of one neuron for 100 references, between layers of ResNet50."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.interleaved import Seconds, interleave, spread
from benchmarks.options import Bench, Options, silent
from explorer.compute import attribution
from explorer.compute.device_lab import RELEVANCE_BATCH, DeviceLab
from explorer.compute.passes import batch
from explorer.networks.zoo import load
from explorer.records import BadInput, Neuron, ReferenceQuery, References

REFERENCES, PER_PICTURE = 100, 64
"""References of a neuron; neurons that cite one picture."""
OF_THE_PEER = {"cpu": 10, "cuda": REFERENCES}
"""How many of the references the peer is given, by the kind of device."""
PAIRS = {"near_": ("layer4.1", "layer4"), "": ("layer3", "layer4")}
"""Lower and upper layer: within layer4, and over the whole of it, which is PURE's pair."""
RULES = ("gradient", "lrp")

Ask = Callable[[], Any]


def measure(options: Options) -> dict[str, Any]:
    """Milliseconds a neuron, and with a peer how many times as long it takes for a pair."""
    bench = Bench(options)
    numbers = iter(range(100_000))
    variants = _alone(bench, numbers)
    if options.peer or not options.quick:
        variants |= _cold(bench, numbers) | _maps(bench) | _shared(bench)
    rounds = 7 if not options.quick else 3 if options.peer else 2
    if not options.peer:
        return _milliseconds(interleave(variants, rounds))
    with _peer(options) as peer:
        pictures = options.folder / "pictures.pt"
        count = OF_THE_PEER[options.device.type]
        x = batch(bench.lab(), np.arange(count) % len(bench.images))
        torch.save(x.cpu().contiguous(), pictures)
        apart = _difference(bench, peer, pictures, x)
        theirs = {
            f"peer_{short}{rule}": lambda s=short, r=rule: peer(s, r, pictures)["seconds"]
            for short in PAIRS
            for rule in RULES
        }
        found = interleave(variants | theirs, rounds)
    return _milliseconds(found, count) | _ratios(found, count) | apart


def _alone(bench: Bench, numbers: Iterator[int]) -> dict[str, Ask]:
    """A neuron not asked before, by a Lab that was asked about its pictures for another."""
    return {
        f"relevance_{short}{rule}": _asker(cache(bench.lab), numbers, between, rule)
        for short, between in PAIRS.items()
        for rule in RULES
    }


def _cold(bench: Bench, numbers: Iterator[int]) -> dict[str, Ask]:
    """A neuron asked by a Lab that has nothing at hand."""
    return {f"relevance_{rule}_cold": _asker(bench.lab, numbers, PAIRS[""], rule) for rule in RULES}


def _asker(
    lab: Callable[[], DeviceLab], numbers: Iterator[int], between: tuple[str, str], rule: str
) -> Ask:
    lower, upper = between

    def ask() -> None:
        now, neuron = lab(), Neuron("bench", upper, next(numbers) % 2048)
        index = np.arange(REFERENCES) % len(now.images)
        value, position = np.ones(REFERENCES, np.float32), np.zeros(REFERENCES, np.int64)
        query = ReferenceQuery(count=REFERENCES, seed=next(numbers))
        asked = References(neuron, query, index, value, position)
        now.relevance(asked, now.network.layer(lower), rule, silent)

    return ask


def _maps(bench: Bench) -> dict[str, Ask]:
    """A neuron in references of which nothing but the lower maps is at hand."""
    count = RELEVANCE_BATCH
    about = torch.full((count,), CHANNEL), torch.arange(count)
    return _of_maps(bench, "maps", count, REFERENCES // count, *about)


def _shared(bench: Bench) -> dict[str, Ask]:
    """Many neurons that cite the same pictures, whose denominators are kept for all of them."""
    rows = torch.arange(2).repeat_interleave(PER_PICTURE)
    return _of_maps(bench, "shared", 2, 1, torch.arange(len(rows)), rows)


def _of_maps(
    bench: Bench, name: str, pictures: int, times: int, channels: torch.Tensor, rows: torch.Tensor
) -> dict[str, Ask]:
    """Channels in the rows of some pictures whose lower maps are given, so many times over."""
    lab = bench.lab()
    x = batch(lab, np.arange(pictures))

    def asker(lower: str, upper: str, rule: str) -> Ask:
        part = lab.model.slice(lower, upper)
        inputs = lab.model.inputs(x, part)

        def ask() -> None:
            for _ in range(times):
                attribution.relevance(part, inputs, channels, rows, rule)

        return ask

    return {
        f"relevance_{short}{rule}_{name}": asker(lower, upper, rule)
        for short, (lower, upper) in PAIRS.items()
        for rule in RULES
    }


def _pairs(name: str, of_the_peer: int) -> int:
    """How many pairs of a picture and a neuron a variant works through."""
    if name.startswith("peer"):
        return of_the_peer
    return 2 * PER_PICTURE if name.endswith("_shared") else REFERENCES


def _milliseconds(found: Seconds, of_the_peer: int = 0) -> dict[str, float]:
    """Of a neuron: of 100 pairs."""
    figures: dict[str, float] = {}
    for name, seconds in found.items():
        figures |= spread(f"{name}_ms", 1000 * seconds * REFERENCES / _pairs(name, of_the_peer))
    return figures


def _ratios(found: Seconds, of_the_peer: int) -> dict[str, float]:
    """How many times as long the peer takes for a pair."""
    figures: dict[str, float] = {}
    for name, seconds in found.items():
        if not name.startswith("peer"):
            what = re.sub("^relevance_|_(cold|maps|shared)$", "", name)
            peer = found[f"peer_{what}"] / of_the_peer
            own = seconds / _pairs(name, of_the_peer)
            figures |= spread(f"{name}_over_peer", peer / own)
    return figures


def _difference(
    bench: Bench, peer: Callable[..., Any], pictures: Path, x: torch.Tensor
) -> dict[str, float]:
    """Largest difference from the peer over its largest value: without the eps that it leaves in
    merged batch norms, and as it is."""
    figures = {}
    network = bench.lab().model
    for short, (lower, upper) in PAIRS.items():
        part = network.slice(lower, upper)
        inputs = network.inputs(x, part)
        pairs = torch.full((len(x),), CHANNEL), torch.arange(len(x))
        for rule in RULES:
            ours = attribution.relevance(part, inputs, *pairs, rule)
            for what, more in {"": {"exact": "1"}, "_as_is": {}}.items():
                file = pictures.with_name("found.pt")
                peer(short, rule, pictures, found=str(file), **more)
                theirs = torch.load(file, weights_only=True)
                apart = float((ours.cpu() - theirs).abs().max() / theirs.abs().max())
                figures[f"relevance_{short}{rule}_difference{what}"] = apart
    return figures


CHANNEL = 7


@contextmanager
def _peer(options: Options) -> Iterator[Callable[..., Any]]:
    """The peer's process, as a function of what it is asked; it waits while others are timed."""
    weights = options.folder / "weights.pt"
    torch.save(load("torchvision:resnet50", "random:0").model.state_dict(), weights)
    command = [options.peer, str(Path(__file__).with_name("peer.py"))]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    to, back = process.stdin, process.stdout
    assert to is not None
    assert back is not None

    def say(question: dict[str, Any]) -> Any:
        print(json.dumps(question), file=to, flush=True)
        answer = back.readline()
        if not answer:
            raise BadInput(f"The peer of {options.peer} ended: give a Python that has zennit-crp.")
        return json.loads(answer)

    def ask(short: str, rule: str, pictures: Path, **more: str) -> Any:
        lower, upper = PAIRS[short]
        about = {"lower": lower, "upper": upper, "channel": CHANNEL, "rule": rule}
        return say({**about, "pictures": str(pictures), **more})

    try:
        say({"network": str(weights), "device": str(options.device)})
        yield ask
    finally:
        to.close()
        process.wait()
