"""One array of a scan, read where it lies: in shards of consecutive pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from explorer.scan_files import Manifest

Index = int | slice | np.ndarray


class Shards:
    """[C,N] over shards [C,n] whose pictures follow one another, all of one size but the last.

    Indexed like an array, by channels and then by pictures, it reads what is asked for and nothing
    else: ``shards[3]`` is one contiguous read per shard. It never turns into an array as a whole.
    """

    def __init__(self, name: str, parts: Sequence[tuple[Path, Manifest]]) -> None:
        self._name = name
        self._parts = parts
        self._maps: dict[int, np.ndarray] = {}
        last = parts[-1][1]
        self._size = parts[0][1].images
        self.shape = (last.channels, last.first + last.images)
        self.dtype = last.dtypes()[name]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("A scan is read in parts: index the channels or pictures that are needed.")

    def __getitem__(self, key: Index | tuple[Index, Index]) -> np.ndarray:
        """``[channels]`` or ``[channels, pictures]``; of the two one at most may be an array."""
        channels, pictures = key if isinstance(key, tuple) else (key, slice(None))
        if isinstance(pictures, slice):
            start, stop, step = pictures.indices(self.shape[1])
            if step != 1:
                raise IndexError("Pictures are read in steps of one.")
            found = [part[channels, low:high] for part, low, high in self._within(start, stop)]
            return np.concatenate(found or [self._map(0)[channels, :0]], axis=-1)
        if isinstance(channels, np.ndarray):
            raise IndexError("Choose channels or pictures by number, not both.")
        pictures = np.asarray(pictures)
        if pictures.size and not 0 <= pictures.min() <= pictures.max() < self.shape[1]:
            raise IndexError(f"Pictures run from 0 to {self.shape[1] - 1}.")
        owner = pictures // self._size
        rows = self._map(0)[channels, :0].shape[:-1]
        result = np.empty((*rows, *pictures.shape), self.dtype)
        for number in np.unique(owner):
            inside = owner == number
            own = pictures[inside] - number * self._size
            result[..., inside] = self._map(int(number))[channels, own]
        return result

    def _within(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, int, int]]:
        """The shards that hold pictures ``start`` to ``stop``, and which of each."""
        if start >= stop:
            return
        for number in range(start // self._size, (stop - 1) // self._size + 1):
            first = number * self._size
            yield self._map(number), max(start - first, 0), min(stop - first, self._size)

    def _map(self, number: int) -> np.ndarray:
        if number not in self._maps:
            folder, manifest = self._parts[number]
            self._maps[number] = manifest.mapped(folder, self._name)
        return self._maps[number]
