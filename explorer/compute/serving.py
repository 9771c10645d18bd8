"""Which channels serve unlike labels: relevance of channels for classes (arXiv 2504.12939)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from explorer.compute.device_lab import DeviceLab
from explorer.compute.inputs import sums, watch
from explorer.compute.passes import host, passing, targets_of
from explorer.lab import Report
from explorer.networks import dividing
from explorer.networks.makers import Tail
from explorer.networks.original import Original
from explorer.networks.surgery import Weighted
from explorer.records import ClassRelevance, Maker

SHOWN = 5
"""Pictures that are kept of each label and channel."""


def class_relevance(
    lab: DeviceLab, original: Original, maker: Maker, tau: float, report: Report
) -> ClassRelevance:
    """One forward pass over all labelled pictures; see ClassRelevance. Relevance of channel c of
    the output a is sum_hw a_c dy/da_c for the logit y of the picture's label, or its highest logit
    where the network does not know the label."""
    start = time.monotonic()
    names, labels = lab.images.label_names, lab.images.labels
    layer, tail = original.layer(maker.path), original.makers.tail(maker.path)
    targets = targets_of(names, lab.network.classes)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    tally = Tally(len(names), maker.channels, groups, maker.inputs)

    def read(x: Tensor, ids: np.ndarray) -> tuple[np.ndarray, ...]:
        wanted = torch.as_tensor(targets[labels[ids]], device=x.device)
        relevance, entered = _relevance(original.model, maker.path, x, wanted, tail)
        share = relevance / relevance.clamp(min=0).sum(1, keepdim=True).clamp(min=1e-12)
        serves = (share >= tau) & (relevance > 0)
        return host(serves), host(sums(layer, entered)), host(relevance)

    labelled = np.flatnonzero(labels >= 0)
    for ids, found in passing(lab, labelled, read, "Reading", report):
        tally.add(labels[ids], ids, *found)
    seen = np.maximum(tally.count, 1)
    return ClassRelevance(
        layer=maker.path,
        tau=tau,
        count=tally.count.astype(np.int32),
        important=(tally.important / seen[:, None]).astype(np.float32),
        means=(tally.means / seen[:, None, None]).astype(np.float32),
        best=tally.best,
        how="sliced backward" if tail is None else "closed form",
        seconds=time.monotonic() - start,
    )


class Tally:
    """Sums over the pictures of each label, and for every label and channel the pictures of the
    highest relevance so far (``best`` i32[K,C,P], -1 pads)."""

    def __init__(self, labels: int, channels: int, groups: int, inputs: int) -> None:
        self.count = np.zeros(labels, np.int64)
        self.important = np.zeros((labels, channels))
        self.means = np.zeros((labels, groups, inputs))
        self.best = np.full((labels, channels, SHOWN), -1, np.int32)
        self._highest = np.full((labels, channels, SHOWN), -np.inf, np.float32)

    def add(
        self,
        labels: np.ndarray,
        ids: np.ndarray,
        serves: np.ndarray,
        units: np.ndarray,
        relevance: np.ndarray,
    ) -> None:
        """Pictures ``ids`` i64[B] with their ``labels``: whether each channel ``serves`` bool[B,C],
        sums of the inputs ``units`` f32[B,G,I] and ``relevance`` f32[B,C]."""
        np.add.at(self.count, labels, 1)
        np.add.at(self.important, labels, serves)
        np.add.at(self.means, labels, units)
        for label, image, row in zip(labels.tolist(), ids.tolist(), relevance, strict=True):
            highest, best = self._highest[label], self.best[label]
            rises = np.flatnonzero(row > highest[:, -1])
            values = np.column_stack([highest[rises], row[rises]])
            images = np.column_stack([best[rises], np.full(len(rises), image, np.int32)])
            order = np.argsort(-values, axis=1, kind="stable")[:, :SHOWN]
            highest[rises] = np.take_along_axis(values, order, 1)
            best[rises] = np.take_along_axis(images, order, 1)


def unlike(
    layer: Weighted, found: ClassRelevance, share: float, gamma: float, least: int
) -> Iterator[tuple[int, int, int, float]]:
    """Channel, two labels and the cosine of their relevance vectors, for every channel important
    in at least ``share`` of the pictures of both labels (of at least ``least`` pictures each) whose
    vectors v = w * m have a cosine below ``gamma``."""
    weight = host(layer.weight).reshape(len(layer.weight), -1).astype(np.float64)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    serves = (found.important >= share) & (found.count >= least)[:, None]
    for channel in np.flatnonzero(serves.sum(0) >= 2):
        labels = np.flatnonzero(serves[:, channel])
        group = channel * groups // len(weight)
        vectors = weight[channel] * found.means[labels, group]
        for first in range(len(labels)):
            for second in range(first + 1, len(labels)):
                cosine = dividing.cosine(vectors[first], vectors[second])
                if cosine < gamma:
                    yield int(channel), int(labels[first]), int(labels[second]), cosine


def _relevance(
    model: nn.Module, path: str, x: Tensor, wanted: Tensor, tail: Tail | None
) -> tuple[Tensor, Tensor]:
    """Relevance [B,C] of a layer's channels for a logit each (-1: the highest), and its input."""
    activation = "" if tail is None else tail.activation
    passed = watch(model, path, x, activation, cut=tail is None)
    target = torch.where(wanted < 0, passed.logits.detach().argmax(1), wanted)
    made = passed.made
    if tail is not None and passed.activated is not None:
        open_ = passed.activated > 0
        if tail.ceiling is not None:
            open_ &= passed.activated < tail.ceiling
        slope = tail.head[target] * tail.factor.to(made)
        return slope * (made * open_).mean((2, 3)), passed.entered
    picked = passed.logits.gather(1, target[:, None]).sum()
    relevance = made.detach() * torch.autograd.grad(picked, made)[0]
    if isinstance(model.get_submodule(path), nn.Linear):
        return relevance.flatten(1, -2).sum(1) if made.dim() > 2 else relevance, passed.entered
    return relevance.sum((2, 3)), passed.entered
