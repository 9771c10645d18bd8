"""The references of channels that are to be planted: one pass over the pictures for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from explorer.browse import highest
from explorer.compute.batching import in_batches
from explorer.compute.decoding import Decoder
from explorer.compute.scan import to_input
from explorer.lab import Report
from explorer.networks.graph import Network
from explorer.records import ImageSet, Plant, Sum

BATCH = 32
AT_ONCE = 256
"""Sums that are computed together: their maps take most of the memory."""

Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of B pictures and P sums: maximum, place, mean over space, which source gives most there, and
how much of the value; f32 and i64 [B,P]."""


def plants(
    network: Network,
    images: ImageSet,
    layer: str,
    sums: Sequence[Sum],
    references: int,
    report: Report,
) -> tuple[Plant, ...]:
    """Every sum with its strongest pictures, one per source photograph. The values are those of the
    layer rectified and not clipped, the sums' exactly as the planted weights make them; only what
    raises a sum counts as given by a source."""
    shape = len(images), len(sums)
    value, mean, share = (np.zeros(shape, np.float32) for _ in range(3))
    place, truth = (np.zeros(shape, np.int32) for _ in range(2))
    start = 0
    for views in Decoder(images.root, network.info.preprocess, BATCH).batches(images.paths):
        pixels = views.pixels
        parts = in_batches(lambda part: _summed(network, part, layer, sums), pixels, BATCH)
        rows = slice(start, start + len(pixels))
        for array, found in zip(
            (value, place, mean, truth, share), zip(*parts, strict=True), strict=True
        ):
            array[rows] = np.concatenate(found)
        value[[start + offset for offset, _, _ in views.unreadable]] = -np.inf
        start = rows.stop
        report(rows.stop / len(images), f"{rows.stop:,} of {len(images):,} pictures")
    made = []
    for at, each in enumerate(sums):
        fires = np.where(value[:, at] > 0, value[:, at], -np.inf)
        best = highest(fires, images.sources, references)
        own = (array[best, at] for array in (value, place, mean, truth, share))
        found_value, found_place, found_mean, found_truth, found_share = own
        made.append(
            Plant(
                sum=each,
                index=best,
                value=found_value,
                position=found_place.astype(np.int64),
                mean=found_mean,
                truth=found_truth.astype(np.int64),
                share=found_share,
            )
        )
    return tuple(made)


def weights(sums: Sequence[Sum], channels: int, device: torch.device) -> Tensor:
    """f32[P,C]: the weights of a planted layer."""
    made = torch.zeros(len(sums), channels, device=device)
    for at, each in enumerate(sums):
        made[at, list(each.sources)] = torch.tensor(each.weights, device=device)
    return made


def _summed(network: Network, views: np.ndarray, layer: str, sums: Sequence[Sum]) -> Found:
    values = _unrectified(network, views, layer).flatten(2)
    parts = [_part(values, sums[at : at + AT_ONCE]) for at in range(0, len(sums), AT_ONCE)]
    maximum, place, mean, truth, share = (
        torch.cat(each, 1).cpu().numpy() for each in zip(*parts, strict=True)
    )
    return maximum, place, mean, truth, share


@torch.no_grad()
def _unrectified(network: Network, views: np.ndarray, layer: str) -> Tensor:
    """[B,C,H,W]: what is rectified in the layer, from the pixels."""
    part = network.slice(None, layer)
    found: Tensor = part.module(*network.inputs(to_input(views, network), part))
    return found


def _part(values: Tensor, sums: Sequence[Sum]) -> tuple[Tensor, ...]:
    groups = max(len(each.sources) for each in sums)
    channels = torch.zeros(len(sums), groups, dtype=torch.long, device=values.device)
    factors = torch.zeros(len(sums), groups, device=values.device)
    for at, each in enumerate(sums):
        channels[at, : len(each.sources)] = torch.tensor(each.sources)
        factors[at, : len(each.sources)] = torch.tensor(each.weights)
    before = torch.tensor([each.join == "before" for each in sums], device=values.device)
    given = values[:, channels] * factors[None, :, :, None]  # [B,P,G,S]
    raised = given.relu()
    whole = torch.where(before[None, :, None], given.sum(2).relu(), raised.sum(2))
    maximum, place = whole.max(2)
    index = place[:, :, None, None].expand(-1, -1, groups, 1)
    there = raised.gather(3, index).squeeze(3)
    most, truth = there.max(2)
    share = most / there.sum(2).clamp(min=1e-12)
    return maximum, place, whole.mean(2), truth, share
