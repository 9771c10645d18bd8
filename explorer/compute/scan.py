"""The scan: one forward pass over all pictures, kept as maximum, mean and position per channel."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from explorer.compute.batching import in_batches
from explorer.compute.decoding import Decoder, Unreadable, Views
from explorer.compute.device import choose_device
from explorer.compute.engine import Cluster
from explorer.lab import Report
from explorer.networks.graph import Network
from explorer.networks.zoo import load
from explorer.records import ImageSet, Workspace
from explorer.scan_writer import LARGEST, ScanWriter

BATCH = 32
CUDA_BATCH = 256
TASK_IMAGES, TASKS = 512, 8
"""Pictures that an actor takes at a time, at most, and for how many times, at least."""

Reduced = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Per layer: spatial maximum f16[C,B], mean f16[C,B] and flat position of the maximum [C,B]."""
Piece = tuple[Reduced, tuple[Unreadable, ...]]
"""What was found in a batch, and which of its pictures could not be read."""


def scan(network: Network, images: ImageSet, writer: ScanWriter, report: Report) -> None:
    """Fill what the writer misses; pictures that cannot be read are recorded in it.

    ``report`` is called between batches, and each second in which a picture is waited for.
    """

    def idle() -> None:
        _tell(writer, report)

    for start, end in writer.gaps:
        paths = images.paths[start:end]
        fill(pieces(network, images.root, paths, writer.layers, idle), writer, report)
    writer.finish()


def fill(found: Iterable[Piece], writer: ScanWriter, report: Report) -> None:
    """Write pieces in the order of their pictures, reporting after each."""
    for reduced, unreadable in found:
        writer.append(reduced, unreadable)
        _tell(writer, report)


def _tell(writer: ScanWriter, report: Report) -> None:
    done = writer.images - writer.missing
    report(done / writer.images, f"{done:,} of {writer.images:,} pictures")


def scan_on(
    cluster: Cluster,
    workspace: Workspace,
    images: ImageSet,
    writer: ScanWriter,
    report: Report,
) -> None:
    """As ``scan``, to the same arrays, by the actors of a cluster."""

    def idle() -> None:
        report(1 - writer.missing / writer.images, cluster.size)

    about = (workspace, images.root, writer.layers, cluster.device)
    batch = CUDA_BATCH if cluster.gpus else BATCH
    batches = math.ceil(writer.missing / (batch * TASKS * cluster.actors))
    size = min(TASK_IMAGES, batch * batches)  # whole batches, so that they are a local scan's
    for start, end in writer.gaps:
        tasks = [images.paths[at : min(at + size, end)] for at in range(start, end, size)]
        for found in cluster.map(scanner, about, tasks, idle):
            fill(found, writer, report)
    writer.finish()


def scanner(
    workspace: Workspace, root: str, layers: Sequence[str], device: str
) -> Callable[[Sequence[str]], list[Piece]]:
    """What an actor does with paths of pictures."""
    loaded = load(workspace.network, workspace.weights)
    network = Network.build(loaded, choose_device(device), workspace.precision)
    return lambda paths: list(pieces(network, root, paths, layers))


def pieces(
    network: Network,
    root: str,
    paths: Sequence[str],
    layers: Sequence[str],
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Piece]:
    """What layers find in the pictures at ``paths`` under ``root``, batch by batch; ``idle`` is
    called each second in which one is waited for.

    While the device works on a batch, the next ones are decoded; on a CUDA device nothing waits
    for a batch before the next is under way.
    """
    cuda = network.device.type == "cuda"
    threads = max(1, (os.cpu_count() or 2) - 1) if cuda else 1
    size = CUDA_BATCH if cuda else BATCH
    decoder = Decoder(root, network.info.preprocess, size, threads, pinned=cuda)
    under_way: deque[tuple[Views, Callable[[], Reduced]]] = deque()
    for views in decoder.batches(paths, idle):
        under_way.append((views, launch(network, views.pixels, layers)))
        if len(under_way) > cuda:
            yield _piece(*under_way.popleft())
    while under_way:
        yield _piece(*under_way.popleft())


def _piece(views: Views, collect: Callable[[], Reduced]) -> Piece:
    return collect(), views.unreadable


def launch(network: Network, views: np.ndarray, layers: Sequence[str]) -> Callable[[], Reduced]:
    """Set the device to work on views u8[B,S,S,3]; calling what is returned waits for the end."""

    def forward(part: np.ndarray) -> tuple[list[int], list[torch.Tensor]]:
        pooled = network.features(to_input(part, network), layers, _pooled)
        each = [pooled[layer] for layer in layers]
        widths = [maximum.shape[1] for maximum, _, _ in each]
        return widths, [torch.cat([one[what] for one in each], 1) for what in range(3)]

    parts = in_batches(forward, views, len(views))
    widths = parts[0][0]
    whole = [torch.cat([found[what] for _, found in parts]) for what in range(3)]
    found = (network.info.layer(network.resolve(layer)) for layer in layers)
    places = max(layer.height * layer.width for layer in found)
    host = [each.to("cpu", non_blocking=True) for each in _narrow(whole, places)]
    ended = torch.Event(network.device) if network.device.type == "cuda" else None
    if ended is not None:
        ended.record()

    def collect() -> Reduced:
        if ended is not None:
            ended.synchronize()
        split = [torch.split(each.T, widths) for each in host]
        found = zip(*([one.numpy() for one in each] for each in split), strict=True)
        return dict(zip(layers, found, strict=True))

    return collect


def to_input(views: np.ndarray, network: Network) -> torch.Tensor:
    """Views u8[B,S,S,3] as the network's normalised input f32[B,3,S,S], channels last."""
    preprocess, device = network.info.preprocess, network.device
    pixels = torch.from_numpy(np.ascontiguousarray(views)).to(device, non_blocking=True)
    mean, std = _constants(preprocess.mean, preprocess.std, views.shape[2], device)
    made = torch.empty(views.shape, device=device)
    # On a CPU picture by picture, as one fits the cache: four times as fast as all at once.
    parts = [slice(None)] if device.type != "cpu" else [slice(i, i + 1) for i in range(len(views))]
    for part in parts:
        torch.div(pixels[part], 255, out=made[part])
        made[part].flatten(2).sub_(mean).div_(std)
    return made.permute(0, 3, 1, 2)


@cache
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """One row of them, on the device, where making them anew for every batch would wait for it."""
    once = (torch.tensor(each, device=device) for each in (mean, std))
    first, second = (each.repeat(width) for each in once)
    return first, second


def _pooled(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values [B,C,H,W] to maximum, mean and flat position, each [B,C]."""
    whole = values.shape[2:]
    if values.device.type == "cpu":  # a window over all is quicker there
        maximum, position = F.max_pool2d(values, whole, return_indices=True)
    else:
        maximum, position = F.adaptive_max_pool2d(values, 1, return_indices=True)
    mean = F.avg_pool2d(values, whole)  # twice as fast as a mean over two axes
    return maximum.flatten(1), mean.flatten(1), position.flatten(1)


def _narrow(whole: Sequence[torch.Tensor], places: int) -> Iterator[torch.Tensor]:
    """Maximum, mean and position among ``places`` in the types in which they are stored."""
    for values in whole[:2]:
        yield values.clamp(-LARGEST, LARGEST).half()
    yield whole[2].to(torch.uint16 if places <= 2**16 else torch.int32)
