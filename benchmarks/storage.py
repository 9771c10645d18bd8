"""Scans of many pictures on disk: writing, one neuron's row, a whole layer's top pictures."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleaved import spread
from benchmarks.options import Options
from explorer import browse
from explorer.arrays import ScanArrays
from explorer.records import ImageSet, Layer, Neuron, ReferenceQuery, Scan

BATCH = 4096
LAYER = Layer("layer4", 2048, 7, 7, True, None, (), "")
SIZES = {"50k": 50_000, "imagenet": 1_281_167}
"""Pictures: a validation set, and all of ImageNet-1k's training pictures (not with ``--quick``)."""
ROWS = 50


def measure(options: Options) -> dict[str, Any]:
    """A synthetic scan of 2,048 channels. A page opens the scan anew for a row; so is it here."""
    figures: dict[str, Any] = {}
    for name, count in SIZES.items():
        if options.quick and count > 50_000:
            continue
        folder = options.folder / name / "scan"
        start = time.perf_counter()
        write(folder, count)
        figures[f"storage_{name}_write_s"] = time.perf_counter() - start
        figures[f"storage_{name}_gb"] = ScanArrays(folder).size() / 1e9
        figures |= _read(name, folder, count)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        figures[f"storage_{name}_rss_mib"] = peak
    return figures


def _read(name: str, folder: Path, count: int) -> dict[str, Any]:
    images = pictures(count)
    seconds = np.array([timed(folder, images, channel) for channel in range(ROWS + 1)][1:])
    figures = spread(f"storage_{name}_row_ms", 1000 * seconds[:, 0])
    figures |= spread(f"storage_{name}_references_ms", 1000 * seconds[:, 1])
    start = time.perf_counter()
    browse.table(opened(folder), images)
    figures[f"storage_{name}_table_s"] = time.perf_counter() - start
    start = time.perf_counter()
    scan = opened(folder)
    for channel in range(LAYER.channels):
        found = browse.references(scan, images, neuron(channel), ReferenceQuery())
        assert len(found.index) == ReferenceQuery().count
    figures[f"storage_{name}_top100_of_all_s"] = time.perf_counter() - start
    return figures


def timed(folder: Path, images: ImageSet, channel: int) -> tuple[float, float]:
    """Seconds for a neuron's row, and for its 100 references."""
    start = time.perf_counter()
    row = opened(folder).maximum[channel]
    middle = time.perf_counter()
    assert row.shape == (len(images),)
    browse.references(opened(folder), images, neuron(channel), ReferenceQuery())
    return middle - start, time.perf_counter() - middle


def opened(folder: Path) -> Scan:
    """The scan as a page opens it."""
    found = ScanArrays(folder).read(LAYER.name)
    assert found is not None
    return found


def neuron(channel: int) -> Neuron:
    return Neuron("bench", LAYER.name, channel)


def pictures(count: int) -> ImageSet:
    """As many pictures, each a photograph of its own, none of which is there."""
    labels = np.arange(count, dtype=np.int32) % 1000
    names = tuple(map(str, range(1000)))
    each = np.arange(count, dtype=np.int32)
    return ImageSet("drawn", "", "", tuple(map(str, range(count))), labels, names, each, "")


def write(folder: Path, count: int) -> None:
    """A scan of numbers drawn by lot, a third of them zero."""
    with ScanArrays(folder).writer([LAYER], count) as writer:
        for batch in drawn(count):
            writer.append({LAYER.name: batch})
        writer.finish()


def drawn(count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches in the order of pictures; one draw serves many, shifted by channels."""
    random = np.random.default_rng(0)
    values = np.maximum(random.standard_normal((LAYER.channels, BATCH), np.float32) + 0.4, 0)
    position = random.integers(0, 49, (LAYER.channels, BATCH))
    for number, first in enumerate(range(0, count, BATCH)):
        width = min(BATCH, count - first)
        now = np.roll(values, number, 0)[:, :width] * np.float32(1 + number % 7 / 7)
        yield now, now / 8, position[:, :width]
