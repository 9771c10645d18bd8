"""Writing a scan: blocks of pictures into shards, behind the back of whoever computes them."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TextIO

import numpy as np

from explorer.disk import private_folder, storing
from explorer.lock import hold
from explorer.records import BadInput, Layer, Unavailable
from explorer.scan_files import Manifest, shard_folder

SHARD_IMAGES = 65_536
BLOCK_IMAGES = 4096
BLOCK_BYTES = 512 * 2**20
BLOCK_SECONDS = 10.0
"""A block is written when it holds this many images or bytes, or is this old: what a kill costs."""
HANDS = 2
"""How many layers are written at once."""
LARGEST = float(np.finfo(np.float16).max)

Batch = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Per layer: maximum [C,B] and mean [C,B], in single or half precision, and flat argmax [C,B] of
B images."""
Skipped = tuple[int, str, str]  # image id, relative path, reason


class ScanWriter:
    """Writes batches of images, in the order of ``gaps``, for the ``layers`` that are not complete
    (names). A context manager: whatever happens, what was appended is kept; ``finish`` says that
    all is there. One writer at a time per folder (Unavailable otherwise). Blocks are written one at
    a time by threads of their own, several layers at once. A full disk raises Unavailable, at best
    before anything is computed, else from a later call; blocks written earlier stay valid.
    """

    def __init__(self, folder: Path, layers: Sequence[tuple[Layer, Path]], images: int) -> None:
        if images < 1:
            raise BadInput("There are no pictures to scan: choose a folder that holds some.")
        self.images = images
        self._lock = _lock(private_folder(folder))
        try:
            parts = [_Part(folder.name, layer, path, images) for layer, path in layers]
            self._parts = [part for part in parts if part.gaps()]
            _check_space(folder, self._parts)
        except BaseException:
            self._lock.close()
            raise
        self.layers = tuple(part.layer.name for part in self._parts)
        self.gaps = _joined([part.gaps() for part in self._parts])
        """The images to append: (first, one past the last), ascending."""
        self._left = list(self.gaps)
        self._next = self._left[0][0] if self._left else images
        self._batches: list[Batch] = []
        self._skipped: list[Skipped] = []
        self._bytes = 0
        self._since = time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="scan writer")
        self._hands = ThreadPoolExecutor(HANDS, thread_name_prefix="scan writer")
        self._writing: Future[None] | None = None

    @property
    def missing(self) -> int:
        """How many images are still to be appended."""
        return sum(end - max(start, self._next) for start, end in self._left)

    def append(self, batch: Batch, invalid: Sequence[Skipped] = ()) -> None:
        """Add the next B images of every layer in ``layers``. ``invalid`` lists pictures that could
        not be read: (offset in the batch, relative path, reason); their columns are ignored."""
        sizes = {array.shape[1] for name in self.layers for array in batch[name]}
        if len(sizes) != 1 or not self._left or self._next + max(sizes) > self._left[0][1]:
            raise ValueError("A batch must hold the same images for every layer, and no more.")
        self._skipped += [(self._next + offset, path, why) for offset, path, why in invalid]
        self._batches.append({name: batch[name] for name in self.layers})
        self._next += sizes.pop()
        self._bytes += sum(array.nbytes for name in self.layers for array in batch[name])
        if (
            self._next == self._left[0][1]
            or sum(map(_width, self._batches)) >= BLOCK_IMAGES
            or self._bytes >= BLOCK_BYTES
            or time.monotonic() - self._since >= BLOCK_SECONDS
        ):
            self._begin_block()

    def flush(self) -> None:
        """Make durable what was appended."""
        self._begin_block()
        self._await_block()

    def finish(self) -> None:
        """Write the rest and check that every image was appended."""
        self.flush()
        if self._left:
            raise ValueError(f"{self.images - self.missing} of {self.images} images were appended.")

    def close(self) -> None:
        """Let others write here; what was appended and not flushed is dropped."""
        self._pool.shutdown(wait=True)
        self._hands.shutdown(wait=True)
        self._lock.close()

    def _begin_block(self) -> None:
        """Hand what was appended to the writing thread, which takes one block at a time."""
        if not self._batches:
            return
        self._await_block()
        batches, self._batches, self._bytes = self._batches, [], 0
        skipped, self._skipped = self._skipped, []
        start = self._next - sum(map(_width, batches))
        self._writing = self._pool.submit(self._write, batches, start, skipped)
        self._since = time.monotonic()
        if self._next == self._left[0][1]:
            self._left.pop(0)
            self._next = self._left[0][0] if self._left else self.images

    def _await_block(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, batches: list[Batch], start: int, skipped: list[Skipped]) -> None:
        def write(part: _Part) -> None:
            found = [batch[part.layer.name] for batch in batches]
            block = [np.concatenate([arrays[i] for arrays in found], 1) for i in range(3)]
            part.write(block, start, skipped)

        deque(self._hands.map(write, self._parts), 0)

    def __enter__(self) -> ScanWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not isinstance(error, Unavailable):  # the disk may be what failed
                self.flush()
        finally:
            self.close()


class _Part:
    """One layer's shards while they are written; each takes its space when it is begun."""

    def __init__(self, scan: str, layer: Layer, folder: Path, images: int) -> None:
        self.layer = layer
        self.shards: list[tuple[Path, Manifest]] = []
        for number, first in enumerate(range(0, images, SHARD_IMAGES)):
            size = min(SHARD_IMAGES, images - first)
            fresh = Manifest.of(scan, layer, first, size, images)
            found = Manifest.read(shard_folder(folder, number), scan)
            kept = found is not None and replace(found, done=0, skipped=()) == fresh
            self.shards.append((shard_folder(folder, number), found if found and kept else fresh))
        if all(manifest.done == 0 for _, manifest in self.shards):
            with storing(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def gaps(self) -> list[tuple[int, int]]:
        """The images of each shard that are not durable."""
        ranges = [(m.first + m.done, m.first + m.images) for _, m in self.shards]
        return [(start, end) for start, end in ranges if start < end]

    def needed(self) -> int:
        """Bytes that shards not begun will take."""
        return sum(m.nbytes for _, m in self.shards if not m.done)

    def write(self, block: list[np.ndarray], start: int, skipped: Sequence[Skipped]) -> None:
        """Write (maximum, mean, position) of the images from ``start`` that are not durable yet."""
        end = start + block[0].shape[1]
        for number, (folder, manifest) in enumerate(self.shards):
            low, high = manifest.first + manifest.done, min(end, manifest.first + manifest.images)
            if not start <= low < high:
                continue
            new = [array[:, low - start : high - start] for array in block]
            invalid = [skip for skip in skipped if low <= skip[0] < high]
            _mask(new, [image - low for image, _, _ in invalid])
            with storing(folder):
                if not manifest.done:
                    _begin(folder, manifest)
                for name, array in zip(manifest.dtypes(), new, strict=True):
                    manifest.write_columns(folder, name, array)
                listed = manifest.skipped + tuple(invalid)
                manifest = replace(manifest, done=high - manifest.first, skipped=listed)
                manifest.write(folder)
            self.shards[number] = folder, manifest


def _mask(block: list[np.ndarray], invalid: list[int]) -> None:
    """Clip to what half precision holds; pictures that could not be read are never the highest."""
    for array, value in zip(block[:2], (-np.inf, 0), strict=True):
        if array.dtype != np.float16:
            np.clip(array, -LARGEST, LARGEST, out=array)
        array[:, invalid] = value
    block[2][:, invalid] = 0


def _begin(folder: Path, manifest: Manifest) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    private_folder(folder.parent)
    private_folder(folder)
    manifest.create(folder)


def _joined(each: Sequence[list[tuple[int, int]]]) -> tuple[tuple[int, int], ...]:
    """The union of several lists of ranges, as ascending ranges that do not touch."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(gap for gaps in each for gap in gaps):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _check_space(folder: Path, parts: Sequence[_Part]) -> None:
    with storing(folder):
        free = shutil.disk_usage(folder).free
    needed = sum(part.needed() for part in parts)
    if needed > free:
        names = ", ".join(part.layer.name for part in parts[:3])
        raise Unavailable(
            f"The scan of {names} needs {needed / 1e6:,.1f} MB, more than is free on the "
            f"disk of {folder}: free some space or set EXPLORER_CACHE_DIR to another disk."
        )


def _width(batch: Batch) -> int:
    return len(next(iter(batch.values()))[0][0])


def _lock(folder: Path) -> TextIO:
    file = hold(folder / "writer.lock")
    if file is None:
        raise Unavailable(
            "These pictures are being scanned by another process: wait for it to end."
        )
    return file
