"""What a scan of pictures leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Stored(Protocol):
    """An array that may lie on disk: indexed by channels, then by images; read in parts only."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Scan:
    """One layer over all images, channel-major, so that one neuron is one contiguous read.

    ``maximum`` f16[C,N]: spatial maximum of the rectified, unclipped value (the raw value where
    the layer is not rectified); ``mean`` f16[C,N]: spatial mean of the same; ``position``
    u16 or u32[C,N]: flat argmax in the layer's height x width. ``valid`` bool[N] is false for
    pictures that could not be read, listed in ``skipped`` as (relative path, reason).
    """

    layer: str
    maximum: Stored
    mean: Stored
    position: Stored
    valid: np.ndarray
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ScanReport:
    """What a scan did. ``seconds`` counts this run only; ``images`` all that are stored."""

    images: int
    skipped: tuple[tuple[str, str], ...]
    layers: tuple[str, ...]
    seconds: float
    images_per_second: float
