"""The files of one scanned layer: three arrays and the manifest that says what of them counts."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer.records import Layer

LOG = logging.getLogger(__name__)

FORM = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a layer's folder holds: ``done`` of ``images`` are durable; ``skipped`` lists the
    pictures that could not be read as (image id, relative path, reason)."""

    form: int
    layer: str
    channels: int
    height: int
    width: int
    images: int
    done: int
    skipped: tuple[tuple[int, str, str], ...]

    @classmethod
    def of(cls, layer: Layer, images: int) -> Manifest:
        """That of a scan not begun."""
        return cls(FORM, layer.name, layer.channels, layer.height, layer.width, images, 0, ())

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """That of ``folder``, None if there is none that can be read and fits its files."""
        try:
            fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            skipped = tuple((int(i), str(path), str(why)) for i, path, why in fields["skipped"])
            manifest = cls(**{**fields, "skipped": skipped})
            fits = manifest.form == FORM and 0 <= manifest.done <= manifest.images
            for name, dtype in manifest.dtypes().items():
                array = mapped(folder, name)
                fits &= (array.dtype, array.shape) == (dtype, (manifest.channels, manifest.images))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            LOG.warning("The scan in %s is damaged and will be made again: %s.", folder, error)
            return None
        return manifest if fits else None

    def create(self, folder: Path) -> None:
        """Make the files of a scan not begun, sparse, and the manifest last."""
        for name, dtype in self.dtypes().items():
            shape = (self.channels, self.images)
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
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


def mapped(folder: Path, name: str) -> np.memmap[Any, Any]:
    """A read-only memory map of one array; ValueError if its file is truncated or no .npy."""
    return np.lib.format.open_memmap(folder / f"{name}.npy", "r")


def write_columns(folder: Path, name: str, columns: np.ndarray, start: int) -> None:
    """Write [C,n] at image ``start``, and sync. Not through a memory map: there a full disk kills
    the process, here it raises."""
    whole = mapped(folder, name)
    with (folder / f"{name}.npy").open("r+b", buffering=0) as file:
        for row, values in enumerate(np.ascontiguousarray(columns)):
            data = memoryview(values).cast("B")
            place = whole.offset + (row * whole.shape[1] + start) * whole.itemsize
            while data:
                written = os.pwrite(file.fileno(), data, place)
                data, place = data[written:], place + written
        os.fsync(file.fileno())
