"""The files of one shard of a scanned layer: three arrays over a range of pictures, and the
manifest that says what of them counts."""

from __future__ import annotations

import io
import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from explorer.records import Layer

LOG = logging.getLogger(__name__)

FORM = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a shard's folder holds: ``done`` of the ``images`` pictures from ``first`` on are
    durable, of ``total`` in all shards; ``skipped`` lists those that could not be read as (image
    id, relative path, reason). ``scan`` names the network and pictures it belongs to."""

    form: int
    scan: str
    layer: str
    channels: int
    height: int
    width: int
    first: int
    images: int
    total: int
    done: int
    skipped: tuple[tuple[int, str, str], ...]

    @classmethod
    def of(cls, scan: str, layer: Layer, first: int, images: int, total: int) -> Manifest:
        """That of a shard not begun."""
        shape = (layer.channels, layer.height, layer.width)
        return cls(FORM, scan, layer.name, *shape, first, images, total, 0, ())

    @classmethod
    def read(cls, folder: Path, scan: str) -> Manifest | None:
        """That of ``folder``; None if there is none, if it is of another scan than ``scan``, or if
        it cannot be read or does not fit its files."""
        try:
            fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            skipped = tuple((int(i), str(path), str(why)) for i, path, why in fields["skipped"])
            manifest = cls(**{**fields, "skipped": skipped})
            fault = manifest._fault(folder, scan)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            fault = str(error)
        if fault:
            LOG.warning("A part of the scan, %s, will be made again: %s.", folder, fault)
            return None
        return manifest

    def _fault(self, folder: Path, scan: str) -> str:
        """What is wrong with it, "" if nothing is."""
        if self.form != FORM or not 0 <= self.done <= self.images:
            return "it was written in another form"
        if self.scan != scan:
            return "it belongs to another network or to other pictures"
        for name, dtype in self.dtypes().items():
            path, head = folder / f"{name}.npy", header(self.shape, dtype)
            with path.open("rb") as file:
                if file.read(len(head)) != head:
                    return f"{path.name} holds something else"
            if path.stat().st_size != len(head) + self.cells * dtype.itemsize:
                return f"{path.name} is not as long as it should be"
        return ""

    @property
    def shape(self) -> tuple[int, int]:
        """Of each array."""
        return self.channels, self.images

    @property
    def cells(self) -> int:
        """How many numbers each array holds."""
        return self.channels * self.images

    @property
    def nbytes(self) -> int:
        """What its arrays take on disk."""
        return self.cells * sum(dtype.itemsize for dtype in self.dtypes().values())

    @property
    def shards(self) -> int:
        """How many shards of this size hold all pictures."""
        return -(-self.total // self.images) if self.first == 0 else 0

    def create(self, folder: Path) -> None:
        """Make the files of a shard not begun, with all their space, and the manifest last."""
        for name, dtype in self.dtypes().items():
            head = header(self.shape, dtype)
            size = len(head) + self.cells * dtype.itemsize
            with (folder / f"{name}.npy").open("wb", buffering=0) as file:
                file.write(head)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
        self.write(folder)

    def write(self, folder: Path) -> None:
        """Replace the manifest of ``folder`` at once, durably."""
        temporary = folder / f"{MANIFEST}.new"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / MANIFEST)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # so that the new name itself is durable
        finally:
            os.close(descriptor)

    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Element type of each array, in the order maximum, mean, position."""
        position = np.uint16 if self.height * self.width <= 2**16 else np.uint32
        half = np.dtype(np.float16)
        return {"maximum": half, "mean": half, "position": np.dtype(position)}

    def mapped(self, folder: Path, name: str) -> np.memmap[Any, Any]:
        """A read-only memory map [C,n] of one array, whose file was found sound."""
        dtype = self.dtypes()[name]
        offset = len(header(self.shape, dtype))
        return np.memmap(folder / f"{name}.npy", dtype, "r", offset, self.shape)

    def write_columns(self, folder: Path, name: str, columns: np.ndarray) -> None:
        """Write [C,n] behind what is done, and sync. Not through a memory map: there a full disk
        kills the process, here it raises."""
        dtype = self.dtypes()[name]
        offset, width = len(header(self.shape, dtype)), self.images
        with (folder / f"{name}.npy").open("r+b", buffering=0) as file:
            block = np.ascontiguousarray(columns, dtype)
            rows = block if block.shape[1] < width else block.reshape(1, -1)  # whole rows touch
            size, held = rows[0].nbytes, rows.reshape(-1).view(np.uint8).data
            for row in range(len(rows)):
                data = held[row * size : (row + 1) * size]
                place = offset + (row * width + self.done) * dtype.itemsize
                while data:
                    written = os.pwrite(file.fileno(), data, place)
                    data, place = data[written:], place + written
            os.fsync(file.fileno())


def shard_folder(layer: Path, number: int) -> Path:
    """Where a shard of a layer lies."""
    return layer / f"{number:05}"


@lru_cache(maxsize=64)
def header(shape: tuple[int, int], dtype: np.dtype[Any]) -> bytes:
    """The bytes with which a .npy file of that array begins."""
    beginning = io.BytesIO()
    fields = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(beginning, fields)
    return beginning.getvalue()
