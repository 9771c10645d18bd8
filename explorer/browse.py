"""What can be read off a scan without the network: references, histogram, table of a layer."""

from __future__ import annotations

import numpy as np

from explorer.records import (
    BadInput,
    DeadNeuron,
    Histogram,
    ImageSet,
    Layer,
    LayerTable,
    NetworkInfo,
    Neuron,
    ReferenceQuery,
    References,
    Scan,
    Workspace,
)

RANGES = ("top", "quantiles", "random")
MEASURES = ("max", "mean")
SINGULAR = "singular"


SCANNED_AHEAD_BYTES = 2 * 10**9
RUN = 128
BYTES_PER_VALUE = 6  # maximum f16, mean f16, position u16


def default_layers(workspace: Workspace, network: NetworkInfo, images: int) -> list[str]:
    """What is scanned ahead: the workspace's layers; else every rectified layer, if that takes
    under 2 GB; else the default layer, its lower layer and the last rectified of each size."""
    if workspace.layers:
        return [network.layer(name).name for name in workspace.layers]
    rectified = [layer for layer in network.layers if layer.rectified]
    if sum(layer.channels for layer in rectified) * images * BYTES_PER_VALUE > SCANNED_AHEAD_BYTES:
        first = network.layer(network.default_layer)
        last = {(layer.height, layer.width): layer for layer in rectified}
        chosen = {first.name, first.lower, *(layer.name for layer in last.values())} - {""}
        return [layer.name for layer in network.layers if layer.name in chosen]
    return [layer.name for layer in rectified] or [network.default_layer]


def check_query(query: ReferenceQuery) -> None:
    """Raise BadInput unless the query is one that ``references`` can answer."""
    if query.by not in (*MEASURES, SINGULAR):
        raise BadInput(f"References are ranked by {' or '.join(MEASURES)}, not '{query.by}'.")
    if query.range not in RANGES:
        raise BadInput(f"References are taken from {', '.join(RANGES)}, not '{query.range}'.")
    if not 1 <= query.count <= 1000:
        raise BadInput(f"Ask for 1 to 1000 references, not {query.count}.")


def check_channel(neuron: Neuron, layer: Layer) -> None:
    """Raise BadInput when the layer has no such channel."""
    if not 0 <= neuron.channel < layer.channels:
        raise BadInput(
            f"Layer {layer.name} has channels 0 to {layer.channels - 1}, not {neuron.channel}."
        )


def references(
    scan: Scan,
    images: ImageSet,
    neuron: Neuron,
    query: ReferenceQuery,
    projected: np.ndarray | None = None,
) -> References:
    """The images that stand for a neuron; see ReferenceQuery.

    ``projected`` f32[N] are the images' projections that a query by "singular" ranks. Ties are
    broken by image id. Raises DeadNeuron when no image makes the channel fire.
    """
    check_query(query)
    if query.by == SINGULAR:
        if projected is None:
            raise BadInput("A singular direction is no neuron: ask for its concept vectors.")
        values = np.where(scan.valid, projected, -np.inf)
    else:
        values = _values(scan, neuron.channel, query.by)
    if not (values > 0).any():
        raise DeadNeuron(
            f"Neuron {neuron.address} fires on none of the {len(images)} pictures: "
            "choose another neuron or another image set."
        )
    if query.range == "top":
        chosen = _top(values, images.sources, query.count)
    elif query.range == "quantiles":
        chosen = _quantiles(values, images.sources, query.count)
    else:
        chosen = _random(values, images.sources, query, neuron.channel)
    return References(
        neuron=neuron,
        query=query,
        index=chosen,
        value=values[chosen],
        position=np.asarray(scan.position[neuron.channel, chosen], dtype=np.int64),
    )


def highest(values: np.ndarray, sources: np.ndarray, count: int) -> np.ndarray:
    """i64[count]: the images of the highest finite ``values`` f32[N], of any sign, one per source
    photograph, highest first."""
    usable = np.flatnonzero(np.isfinite(values))
    order = usable[np.argsort(-values[usable], kind="stable")]
    return _first_of_each_source(order, sources)[:count]


def histogram(scan: Scan, channel: int, bins: int) -> Histogram:
    """Counts of a channel's spatial maxima above zero, in ``bins`` equal steps."""
    values = _values(scan, channel, "max")
    positive = values[values > 0]
    top = float(positive.max()) if positive.size else 1.0
    counts, edges = np.histogram(positive, bins=bins, range=(0.0, top))
    zero = int(np.isfinite(values).sum() - positive.size)
    return Histogram(counts.astype(np.int64), edges.astype(np.float32), zero)


def table(scan: Scan, images: ImageSet, top: int = 12) -> LayerTable:
    """Per channel: maxima, density, top images and their most frequent label."""
    channels = scan.maximum.shape[0]
    maximum, mean, density = (np.zeros(channels, np.float32) for _ in range(3))
    chosen = np.full((channels, top), -1, np.int32)
    label = np.full(channels, -1, np.int32)
    purity = np.zeros(channels, np.float32)
    for channel in range(channels):
        values = _values(scan, channel, "max")
        finite = np.isfinite(values)
        if not finite.any():
            continue
        maximum[channel] = values[finite].max()
        mean[channel] = _values(scan, channel, "mean")[finite].mean()
        density[channel] = (values[finite] > 0).mean()
        if maximum[channel] > 0:
            best = _top(values, images.sources, top)
            chosen[channel, : best.size] = best
            label[channel], purity[channel] = majority(images.labels[best])
    return LayerTable(
        layer=scan.layer,
        maximum=maximum,
        mean=mean,
        density=density,
        alive=maximum > 0,
        top=chosen,
        label=label,
        purity=purity,
    )


def _values(scan: Scan, channel: int, by: str) -> np.ndarray:
    """f32[N]: one contiguous read; pictures that could not be read are minus infinity."""
    row = (scan.maximum if by == "max" else scan.mean)[channel]
    return np.where(scan.valid, np.asarray(row, dtype=np.float32), -np.inf)


def _first_of_each_source(order: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Keep, in order, only the first image of every source photograph."""
    _, first = np.unique(sources[order], return_index=True)
    return np.asarray(order[np.sort(first)], dtype=np.int64)


def _top(values: np.ndarray, sources: np.ndarray, count: int) -> np.ndarray:
    """The highest positive values, one per source; reads only as deep as it must."""
    positive = int((values > 0).sum())
    depth = count
    while True:
        depth = min(4 * depth, positive)
        threshold = _reached(values, depth)
        candidates = np.flatnonzero((values >= threshold) & (values > 0))
        order = candidates[np.argsort(-values[candidates], kind="stable")]
        chosen = _first_of_each_source(order, sources)[:count]
        if chosen.size == count or depth == positive:
            return chosen


def _reached(values: np.ndarray, depth: int) -> np.float32:
    """A number that at least ``depth`` values reach, and hardly more of a million: the depth-th
    highest of the maxima of runs of values, which takes one pass where sorting takes many."""
    whole = values.size // RUN * RUN
    highest = values[:whole].reshape(-1, RUN).max(axis=1)
    if highest.size < 4 * depth:
        highest = values
    return np.float32(np.partition(highest, highest.size - depth)[highest.size - depth])


def _quantiles(values: np.ndarray, sources: np.ndarray, count: int) -> np.ndarray:
    positive = np.flatnonzero(values > 0)
    order = positive[np.argsort(-values[positive], kind="stable")]
    order = _first_of_each_source(order, sources)
    ranks = np.unique(np.linspace(0, order.size - 1, count).round().astype(int))
    return np.asarray(order[ranks], dtype=np.int64)


def _random(
    values: np.ndarray, sources: np.ndarray, query: ReferenceQuery, channel: int
) -> np.ndarray:
    usable = np.flatnonzero(np.isfinite(values))
    generator = np.random.default_rng([query.seed, channel])
    chosen = _first_of_each_source(generator.permutation(usable), sources)[: query.count]
    return np.asarray(chosen[np.argsort(-values[chosen], kind="stable")], dtype=np.int64)


def majority(labels: np.ndarray) -> tuple[int, float]:
    """The most frequent label (-1: none has one) and its share of all, labelled or not."""
    known = labels[labels >= 0]
    if not known.size:
        return -1, 0.0
    counts = np.bincount(known)
    return int(counts.argmax()), float(counts.max() / labels.size)
