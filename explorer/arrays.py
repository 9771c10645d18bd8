"""Scans as memory maps: durable, resumable, never half read.

One folder per layer holds ``maximum.npy``, ``mean.npy`` (f16[C,N]) and ``position.npy`` (u16 or
u32[C,N]), channel-major, so that one neuron is one contiguous read, and ``manifest.json``, which
says how many images are durable. Blocks of images are written and synced before the manifest
counts them, so a killed scan goes on where the manifest ends.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TextIO
from urllib.parse import quote

import numpy as np

from explorer.disk import private_folder, storing
from explorer.lock import hold
from explorer.records import BadInput, Layer, Scan, Unavailable
from explorer.scan_files import Manifest, mapped, write_columns

BLOCK_IMAGES = 4096
BLOCK_BYTES = 64 * 2**20
BLOCK_SECONDS = 10.0
"""A block is written when it holds this many images or bytes, or is this old: what a kill costs."""
LARGEST = float(np.finfo(np.float16).max)

Batch = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Per layer: maximum f32[C,B], mean f32[C,B] and flat argmax i64[C,B] of B images."""


class ScanArrays:
    """The scans of one network over one image set, in ``folder``. Reading needs no lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, layer: str) -> Scan | None:
        """The scan of a layer as read-only memory maps, None unless it is complete and sound."""
        folder = self._path(layer)
        manifest = Manifest.read(folder)
        if manifest is None or manifest.done < manifest.images:
            return None
        valid = np.ones(manifest.images, bool)
        valid[[image for image, _, _ in manifest.skipped]] = False
        valid.flags.writeable = False
        return Scan(
            layer=layer,
            maximum=mapped(folder, "maximum"),
            mean=mapped(folder, "mean"),
            position=mapped(folder, "position"),
            valid=valid,
            skipped=tuple((path, reason) for _, path, reason in manifest.skipped),
        )

    def progress(self, layer: str) -> float:
        """The share of images that is durable, 0 to 1."""
        manifest = Manifest.read(self._path(layer))
        return manifest.done / manifest.images if manifest else 0.0

    def size(self) -> int:
        """Bytes on disk."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return sum(path.stat().st_blocks * 512 for path in files)

    def writer(self, layers: Sequence[Layer], images: int) -> ScanWriter:
        """Begin or resume a scan of N ``images``. What does not fit layer and N is made again."""
        return ScanWriter(
            self.folder, [(layer, self._path(layer.name)) for layer in layers], images
        )

    def _path(self, layer: str) -> Path:
        name = quote(layer, safe="")
        if not name or name.startswith(".") or len(name) > 200:
            raise BadInput(f"'{layer[:60]}' cannot be the name of a layer.")
        return self.folder / name


class ScanWriter:
    """Writes batches of images, in order, from image ``start``, for the ``layers`` that are not
    complete (names). A context manager: whatever happens, what was appended is kept; ``finish``
    says that all is there. One writer at a time per folder (Unavailable otherwise). A full disk
    raises Unavailable, at best before anything is computed; blocks written earlier stay valid.
    """

    def __init__(self, folder: Path, layers: Sequence[tuple[Layer, Path]], images: int) -> None:
        if images < 1:
            raise BadInput("There are no pictures to scan: choose a folder that holds some.")
        self.images = images
        self._lock = _lock(private_folder(folder))
        try:
            begun = [_begin(layer, path, images) for layer, path in layers]
        except BaseException:
            self._lock.close()
            raise
        self._parts = [part for part in begun if part.manifest.done < images]
        self.layers = tuple(part.manifest.layer for part in self._parts)
        self.start = min((part.manifest.done for part in self._parts), default=images)
        self._written = self._appended = self.start
        self._batches: list[Batch] = []
        self._skipped: list[tuple[int, str, str]] = []
        self._bytes = 0
        self._since = time.monotonic()

    def append(self, batch: Batch, invalid: Sequence[tuple[int, str, str]] = ()) -> None:
        """Add the next B images of every layer in ``layers``. ``invalid`` lists pictures that could
        not be read: (offset in the batch, relative path, reason); their columns are ignored."""
        sizes = {array.shape[1] for name in self.layers for array in batch[name]}
        if len(sizes) != 1 or self._appended + max(sizes) > self.images:
            raise ValueError("A batch must hold the same images for every layer, and no more.")
        count = sizes.pop()
        self._skipped += [(self._appended + offset, path, why) for offset, path, why in invalid]
        self._batches.append({name: batch[name] for name in self.layers})
        self._appended += count
        self._bytes += sum(array.nbytes for name in self.layers for array in batch[name])
        if (
            self._appended - self._written >= BLOCK_IMAGES
            or self._bytes >= BLOCK_BYTES
            or time.monotonic() - self._since >= BLOCK_SECONDS
        ):
            self.flush()

    def flush(self) -> None:
        """Make durable what was appended."""
        if not self._batches:
            return
        batches, self._batches, self._bytes = self._batches, [], 0
        self._since = time.monotonic()
        for part in self._parts:
            name = part.manifest.layer
            block = [np.concatenate([batch[name][i] for batch in batches], 1) for i in range(3)]
            part.write(block, self._written, self._skipped)
        self._written = self._appended

    def finish(self) -> None:
        """Write the rest and check that every image was appended."""
        self.flush()
        if self.layers and self._written < self.images:
            raise ValueError(f"{self._written} of {self.images} images were appended.")

    def close(self) -> None:
        """Let others write here; what was appended and not flushed is dropped."""
        self._lock.close()

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
    """One layer's folder while it is written."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def write(
        self, block: list[np.ndarray], start: int, skipped: Sequence[tuple[int, str, str]]
    ) -> None:
        """Write (maximum, mean, position) of the images from ``start`` that are not durable yet."""
        manifest = self.manifest
        end = start + block[0].shape[1]
        if end <= manifest.done:
            return
        new = [array[:, manifest.done - start :].copy() for array in block]
        invalid = [image - manifest.done for image, _, _ in skipped if manifest.done <= image < end]
        for array, value in zip(new[:2], (-np.inf, 0), strict=True):
            np.clip(array, -LARGEST, LARGEST, out=array)
            array[:, invalid] = value
        new[2][:, invalid] = 0
        with storing(self.folder):
            for (name, dtype), array in zip(manifest.dtypes().items(), new, strict=True):
                write_columns(self.folder, name, array.astype(dtype), manifest.done)
            listed = tuple(skip for skip in skipped if skip[0] >= manifest.done)
            self.manifest = replace(manifest, done=end, skipped=manifest.skipped + listed)
            self.manifest.write(self.folder)


def _begin(layer: Layer, folder: Path, images: int) -> _Part:
    fresh = Manifest.of(layer, images)
    found = Manifest.read(folder)
    if found is not None and replace(found, done=0, skipped=()) == fresh:
        return _Part(folder, found)
    with storing(folder):
        if folder.exists():
            shutil.rmtree(folder)
    private_folder(folder)
    with storing(folder):
        cells = layer.channels * images
        needed = cells * sum(dtype.itemsize for dtype in fresh.dtypes().values())
        if needed > shutil.disk_usage(folder).free:
            raise Unavailable(
                f"The scan of {layer.name} needs {needed / 1e6:,.1f} MB, more than is free on the "
                f"disk of {folder}: free some space or set EXPLORER_CACHE_DIR to another disk."
            )
        fresh.create(folder)
    return _Part(folder, fresh)


def _lock(folder: Path) -> TextIO:
    file = hold(folder / "writer.lock")
    if file is None:
        raise Unavailable(
            "These pictures are being scanned by another process: wait for it to end."
        )
    return file
