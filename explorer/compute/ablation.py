"""What a network answers without one channel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from explorer.compute.batching import in_batches
from explorer.compute.device_lab import DeviceLab
from explorer.compute.passes import batch, host
from explorer.lab import Report
from explorer.records import Neuron

BATCH = 32

Answered = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pairs i64[2,P] of the number of a channel and of a picture, logits f32[b,classes] of a batch of
pictures as they are, and f32[P,classes] of the pairs without their channel."""


def without_each(
    lab: DeviceLab,
    layer: str,
    channels: np.ndarray,
    index: np.ndarray,
    wanted: np.ndarray,
    report: Report,
) -> Iterator[tuple[int, Answered]]:
    """The network's answers to pictures ``index`` i64[n], a batch at a time with the place of its
    first picture, and without each of ``channels`` i64[S] where ``wanted`` bool[S,n] says so, the
    channel set to zero everywhere. What comes before the layer runs once for each picture."""

    def part(places: np.ndarray) -> Answered:
        pairs = np.stack(np.nonzero(wanted[:, places]))
        which, rows = (torch.from_numpy(each) for each in (channels[pairs[0]], pairs[1]))
        x = batch(lab, index[places])
        before, after = lab.model.without(x, layer, which, rows)
        return pairs, host(before.float()), host(after.float())

    for start in range(0, len(index), BATCH):
        report(start / len(index), f"Taking out channels: {start:,} of {len(index):,} pictures")
        places = np.arange(start, min(start + BATCH, len(index)))
        at = start
        for found in in_batches(part, places, BATCH):
            yield at, found
            at += len(found[1])


def without(
    lab: DeviceLab, neuron: Neuron, index: np.ndarray, report: Report
) -> tuple[np.ndarray, np.ndarray]:
    """Logits f32[n,classes] of pictures ``index`` i64[n], n > 0, twice: as they are, and with the
    channel set to zero everywhere."""
    every = np.ones((1, len(index)), bool)
    channel = np.array([neuron.channel])
    found = [each for _, each in without_each(lab, neuron.layer, channel, index, every, report)]
    return np.concatenate([each[1] for each in found]), np.concatenate([each[2] for each in found])
