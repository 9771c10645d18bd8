"""Scalar signals of a network over all pictures: a neuron, a virtual neuron, a concept vector, a
part of a divided channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.answers.neuron import split
from explorer.answers.room import Room, inner
from explorer.answers.surgery import parts as divided_parts
from explorer.compute.device_lab import DeviceLab
from explorer.compute.projections import project
from explorer.keys import Identity, Question, digest
from explorer.lab import Report
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.operations import operation, parts
from explorer.records import BadInput, Neuron, PartResponses, ReferenceQuery, References, Split

ASSIGNED = {"relevance": 1000, "crops": 300}
"""Pictures assigned to virtual neurons at most, where that takes relevance of a lower layer, or
where the neuron looks in each of them."""
PROJECTED = "concept_vectors"
"""The method whose virtual neurons are directions: their signal is a projection."""


@dataclass(frozen=True)
class Signals:
    """``values`` f32[N,S] over all pictures, and on which of them they are known, bool[N].
    ``name`` is that of a part of a divided channel, else ""."""

    values: np.ndarray
    known: np.ndarray
    name: str = ""


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
    lab: DeviceLab,
    found: Split,
    pool: str,
    report: Report,
    gated: bool = False,
    among: np.ndarray | None = None,
) -> Signals:
    """One signal for each virtual neuron: the neuron's value on pictures assigned to it, else 0,
    so that they add up to the neuron; or, unless ``gated``, for concept vectors the projection of
    the layer's means. Pictures on which the neuron does not fire belong to none; on those that
    the method gives to none the signals are not known. They are known on the pictures ``among``
    bool[N] alone; where that is None and assigning needs the network, as many as ASSIGNED says,
    evenly spaced by rank, stand for all that fire."""
    whole = neuron_signal(lab, found.neuron, pool, report)
    if found.method == PROJECTED and not gated:
        means = lab.scan(found.neuron.layer, report).mean
        return Signals(project(means, found.centroid, report).T, whole.known)
    value, known = whole.values[:, 0], whole.known.copy()
    needed = _needed(lab, found)
    if among is not None:
        known &= among
    firing = np.flatnonzero(known & (value > 0))
    firing = firing[np.argsort(-value[firing], kind="stable")]
    if needed and among is None and len(firing) > ASSIGNED[needed]:
        spread = np.linspace(0, len(firing) - 1, ASSIGNED[needed]).round().astype(int)
        known[np.delete(firing, spread)] = False
        firing = firing[spread]
    owner = _assigned(lab, found, firing, pool, report)
    values = np.zeros((len(value), found.k), np.float32)
    own = owner >= 0
    values[firing[own], owner[own]] = value[firing[own]]
    known[firing[~own]] = False
    return Signals(values, known)


def _needed(lab: DeviceLab, found: Split) -> str:
    """What assigning a picture takes besides the scan: "relevance", "crops" or nothing ("")."""
    if found.method == "embedding":
        return "crops"
    layers = {layer.name for layer in lab.network.layers}
    return "relevance" if found.space in layers - {found.neuron.layer} else ""


def _assigned(
    lab: DeviceLab, found: Split, images: np.ndarray, pool: str, report: Report
) -> np.ndarray:
    """i64[K]: the virtual neuron of each of these pictures, as the method assigns new ones; -1
    where it gives them to none."""
    scan = lab.scan(found.neuron.layer, report)
    query = ReferenceQuery(pool, f"given {digest(images)}", len(images))
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


def part_signal(
    room: Room, question: Question, identity: Identity, listed: Sequence[str], report: Report
) -> Signals:
    """What the part numbered ``virtual`` of the channel that the last of these operations divides
    gives, as its layer computes it (-1: the channel itself): the mean over places of the positive
    part, or the highest place."""
    operations = [operation(text) for text in listed]
    about = parts(question.workspace, operations)
    found = room.kept(
        about, identity, PartResponses, lambda: divided_parts(room, about, identity, report)
    )
    virtual = question.args["virtual"]
    if virtual >= len(found.names):
        raise BadInput(f"The channel has parts 0 to {len(found.names) - 1}, not {virtual}.")
    values = found.mean if question.args["pool"] == "mean" else found.peak
    name = found.names[virtual] if virtual >= 0 else ""
    return Signals(values[:, [virtual + 1]], found.known, name)


def split_of(
    room: Room, question: Question, identity: Identity, args: Mapping[str, Any], report: Report
) -> Split:
    """The split that ``args`` describe of the question's neuron, stored or made."""
    about = inner("split", question, args)
    return room.kept(about, identity, Split, lambda: split(room, about, identity, report))
