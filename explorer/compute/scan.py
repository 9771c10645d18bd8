"""The scan: one forward pass over all pictures, kept as maximum, mean and position per channel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F

from explorer.arrays import ScanWriter
from explorer.compute.batching import in_batches
from explorer.images.pictures import view
from explorer.lab import Report
from explorer.networks.graph import Network
from explorer.records import BadInput, ImageSet, Preprocess

BATCH = 32
AHEAD = 3  # batches being decoded while the device works

Reduced = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
Unreadable = tuple[int, str, str]  # offset in the batch, relative path, reason


def scan(network: Network, images: ImageSet, writer: ScanWriter, report: Report) -> None:
    """Fill the writer from where it stands; pictures that cannot be read are recorded in it.

    ``report`` is called between batches, with no device work open.
    """
    total = len(images)
    for start, views, unreadable in _decoded(images, network.info.preprocess, writer.start):
        writer.append(reduce(network, views, writer.layers), unreadable)
        done = start + len(views)
        report(done / total, f"{done:,} of {total:,} pictures")
    writer.finish()


def reduce(network: Network, views: np.ndarray, layers: Sequence[str]) -> Reduced:
    """Views u8[B,S,S,3] to, per layer, spatial maximum f32[C,B], mean f32[C,B] and the flat
    position of the maximum i64[C,B]."""

    def forward(part: np.ndarray) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        pooled = network.features(to_input(part, network), layers, _pooled)
        return [pooled[layer] for layer in layers]

    parts = list(in_batches(forward, views, BATCH))
    return {
        layer: tuple(  # type: ignore[misc]
            torch.cat([part[at][what] for part in parts]).T.cpu().numpy() for what in range(3)
        )
        for at, layer in enumerate(layers)
    }


def to_input(views: np.ndarray, network: Network) -> torch.Tensor:
    """Views u8[B,S,S,3] as the network's normalised input f32[B,3,S,S], channels last."""
    preprocess = network.info.preprocess
    pixels = torch.from_numpy(np.ascontiguousarray(views)).to(network.device, non_blocking=True)
    mean = torch.tensor(preprocess.mean, device=network.device)
    std = torch.tensor(preprocess.std, device=network.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def _pooled(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values [B,C,H,W] to maximum, mean and flat position, each [B,C]."""
    maximum, position = F.adaptive_max_pool2d(values, 1, return_indices=True)
    mean = F.avg_pool2d(values, values.shape[2:])  # twice as fast as a mean over two axes
    return maximum.flatten(1).float(), mean.flatten(1).float(), position.flatten(1)


def _decoded(
    images: ImageSet, preprocess: Preprocess, start: int
) -> Iterator[tuple[int, np.ndarray, list[Unreadable]]]:
    """Batches of views in image order, decoded ahead in one thread."""

    def decode(first: int) -> tuple[int, np.ndarray, list[Unreadable]]:
        paths = images.paths[first : first + BATCH]
        views = np.zeros((len(paths), preprocess.crop, preprocess.crop, 3), np.uint8)
        unreadable: list[Unreadable] = []
        for offset, path in enumerate(paths):
            try:
                views[offset] = view(images.root, path, preprocess)
            except BadInput as error:
                unreadable.append((offset, path, str(error)))
        return first, views, unreadable

    waiting: deque[Future[tuple[int, np.ndarray, list[Unreadable]]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        for first in range(start, len(images), BATCH):
            waiting.append(pool.submit(decode, first))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
