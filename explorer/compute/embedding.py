"""Embedders of pictures and texts: open one by name, or say what stands in for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from explorer.compute.clip import Clip
from explorer.compute.conse import Conse
from explorer.compute.features import Features
from explorer.embedders import CONSE, parse, title
from explorer.records import EmbedderInfo, Unavailable


class Embedder(Protocol):
    """Pictures, and texts where ``texts_too``, as rows of unit length in one space."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def texts_too(self) -> bool: ...

    def images(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """f32[B,E]: embeddings of pieces of pictures, each u8[H,W,3] of any size."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """f32[T,E]: embeddings of texts; BadInput where the embedder knows none."""


def open_embedder(spec: str, device: torch.device) -> Embedder:
    """Load the embedder of that name (see ``explorer.embedders.parse``) onto a device.

    Raises BadInput for a wrong name or checkpoint and Unavailable when its weights cannot be had.
    """
    kind = parse(spec).kind
    if kind == CONSE:
        return Conse(device)
    return Clip(spec, device) if kind == "open_clip" else Features(spec, device)


def resolve(spec: str, opened: Callable[[str], Embedder]) -> EmbedderInfo:
    """What is used for ``spec`` on this machine: itself, or ConSE when its weights cannot be had.

    ``opened`` opens an embedder by name and may keep it. Raises BadInput for a wrong name or
    checkpoint, and Unavailable when even the stand-in cannot be had.
    """
    try:
        embedder = opened(spec)
        return EmbedderInfo(spec, spec, embedder.title, "", embedder.texts_too)
    except Unavailable as error:
        if spec == CONSE:
            raise
        stand_in = opened(CONSE)
        notice = f"{stand_in.title} stands in for {title(spec)}. {error}"
        return EmbedderInfo(spec, CONSE, stand_in.title, notice, stand_in.texts_too)
