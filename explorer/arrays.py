"""Scans on disk: durable, resumable, never half read, never loaded whole.

One folder per layer holds shards, ``00000`` and so on: each a folder with the arrays
``maximum.npy``, ``mean.npy`` (f16[C,n]) and ``position.npy`` (u16 or u32[C,n]) of up to 65,536
consecutive pictures, channel-major, so that one neuron is one contiguous read per shard, and
``manifest.json``, which says how many of the pictures are durable. Blocks of pictures are written
and synced before the manifest counts them, so a killed scan goes on where the manifests end, and a
shard that is damaged is made again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from explorer.records import BadInput, Layer, Scan
from explorer.scan_files import Manifest, shard_folder
from explorer.scan_writer import ScanWriter
from explorer.shards import Shards


class ScanArrays:
    """The scans of one network over one image set, in ``folder``, whose name is their identity.
    Reading needs no lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, layer: str) -> Scan | None:
        """The scan of a layer, read where it lies; None unless it is complete and sound."""
        parts = self._shards(layer)
        if not parts or any(each.done < each.images for _, each in parts):
            return None
        skipped = [skip for _, each in parts for skip in each.skipped]
        valid = np.ones(parts[0][1].total, bool)
        valid[[image for image, _, _ in skipped]] = False
        valid.flags.writeable = False
        return Scan(
            layer=layer,
            maximum=Shards("maximum", parts),
            mean=Shards("mean", parts),
            position=Shards("position", parts),
            valid=valid,
            skipped=tuple((path, reason) for _, path, reason in skipped),
        )

    def progress(self, layer: str) -> float:
        """The share of images that is durable, 0 to 1."""
        first = Manifest.read(shard_folder(self._path(layer), 0), self.folder.name)
        if first is None:
            return 0.0
        done = (
            each.done
            for number in range(first.shards)
            if (each := Manifest.read(shard_folder(self._path(layer), number), self.folder.name))
        )
        return sum(done) / first.total

    def size(self) -> int:
        """Bytes on disk."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return sum(path.stat().st_blocks * 512 for path in files)

    def writer(self, layers: Sequence[Layer], images: int) -> ScanWriter:
        """Begin or resume a scan of N ``images``. What does not fit layer and N is made again."""
        return ScanWriter(
            self.folder, [(layer, self._path(layer.name)) for layer in layers], images
        )

    def _shards(self, layer: str) -> list[tuple[Path, Manifest]]:
        """Every shard of a layer with its manifest, in order; none where one is missing."""
        found: list[tuple[Path, Manifest]] = []
        while not found or len(found) < found[0][1].shards:
            folder = shard_folder(self._path(layer), len(found))
            manifest = Manifest.read(folder, self.folder.name)
            if manifest is None:
                return []
            found.append((folder, manifest))
        return found

    def _path(self, layer: str) -> Path:
        name = quote(layer, safe="")
        if not name or name.startswith(".") or len(name) > 200:
            raise BadInput(f"'{layer[:60]}' cannot be the name of a layer.")
        return self.folder / name
