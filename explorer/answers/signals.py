"""Scalar signals of a network over all pictures: a neuron, a virtual neuron, a concept vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.answers.neuron import split
from explorer.answers.room import Room, inner
from explorer.compute.device_lab import DeviceLab
from explorer.keys import Identity, Question
from explorer.lab import Report
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.records import BadInput, Neuron, ReferenceQuery, References, Split

ASSIGNED = 1000
"""Pictures assigned to virtual neurons when that takes more than reading the scan."""
PROJECTED = "concept_vectors"
"""The method whose virtual neurons are directions: their signal is a projection."""


@dataclass(frozen=True)
class Signals:
    """``values`` f32[N,S] over all pictures, and on which of them they are known, bool[N]."""

    values: np.ndarray
    known: np.ndarray


def neuron_signal(lab: DeviceLab, neuron: Neuron, pool: str, report: Report) -> Signals:
    """The neuron's spatial mean or maximum. Raises BadInput where it never changes."""
    scan = lab.scan(neuron.layer, report)
    row = (scan.mean if pool == "mean" else scan.maximum)[neuron.channel]
    known = np.asarray(scan.valid).copy()
    values = np.where(known, np.asarray(row, np.float32), 0)
    if not known.any() or np.ptp(values[known]) == 0:
        raise BadInput(
            f"Neuron {neuron.address} has the same value on every picture, so there is nothing "
            "to explain: choose another neuron."
        )
    return Signals(values[:, None], known)


def virtual_signals(
    lab: DeviceLab, found: Split, pool: str, limit: int, gated: bool, report: Report
) -> Signals:
    """One signal for each virtual neuron: the neuron's value on pictures assigned to it, else 0,
    so that they add up to the neuron; or, unless ``gated``, for concept vectors the projection of
    the layer's means. Pictures on which the neuron does not fire belong to none. Where assigning
    needs the network, ``limit`` pictures, evenly spaced by rank, stand for all that fire; the
    signals are not known on the others."""
    whole = neuron_signal(lab, found.neuron, pool, report)
    if found.method == PROJECTED and not gated:
        means = lab.activations(found.neuron.layer, np.arange(len(lab.images)), report)
        return Signals(means @ found.centroid.T, whole.known)
    value = whole.values[:, 0]
    firing = np.flatnonzero(whole.known & (value > 0))
    firing = firing[np.argsort(-value[firing], kind="stable")]
    known = whole.known.copy()
    if _costly(lab, found) and len(firing) > limit:
        chosen = firing[np.unique(np.linspace(0, len(firing) - 1, limit).round().astype(int))]
        known[np.setdiff1d(firing, chosen)] = False
        firing = chosen
    owner = _assigned(lab, found, firing, pool, report)
    values = np.zeros((len(value), found.k), np.float32)
    values[firing, owner] = value[firing]
    return Signals(values, known)


def _costly(lab: DeviceLab, found: Split) -> bool:
    """Whether assigning pictures takes passes through the network: relevance of a lower layer."""
    layers = {layer.name for layer in lab.network.layers}
    return found.space in layers - {found.neuron.layer}


def _assigned(
    lab: DeviceLab, found: Split, images: np.ndarray, pool: str, report: Report
) -> np.ndarray:
    """i64[K]: the virtual neuron of each of these pictures, as the method assigns new ones."""
    if found.method == "embedding":
        raise BadInput(
            "Virtual neurons of embedding k-means are explained by no signal: choose pure, "
            "activations or concept_vectors."
        )
    scan = lab.scan(found.neuron.layer, report)
    query = ReferenceQuery(pool, "firing", len(images))
    position = np.asarray(scan.position[found.neuron.channel, images], np.int64)
    value = np.asarray(scan.maximum[found.neuron.channel, images], np.float32)
    references = References(found.neuron, query, images, value, position)
    method = method_named(found.method)
    params = read_params(method.Params, found.params)
    if found.method == PROJECTED:  # its rows may be centred on the references of the split
        rows = lab.activations(found.neuron.layer, images, report)
    else:
        rows, _ = method.rows(lab, references, params, report)
    label, _ = method.assign(rows, found)
    return np.asarray(label)


def split_of(
    room: Room, question: Question, identity: Identity, args: Mapping[str, Any], report: Report
) -> Split:
    """The split that ``args`` describe of the question's neuron, stored or made."""
    about = inner("split", question, args)
    return room.kept(about, identity, Split, lambda: split(room, about, identity, report))
