"""Pieces of pictures, of any size, into a network; rows of unit length out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explorer.images.pictures import fit
from explorer.records import BadInput, Preprocess

BATCH = 32


def tensor(pieces: Sequence[np.ndarray], preprocess: Preprocess, device: torch.device) -> Tensor:
    """f32[B,3,S,S]: pieces u8[H,W,3] with the short side on the network's crop S, cut to its
    centre, in the network's units. A piece is already cropped, so nothing more is cut away."""
    whole = replace(preprocess, resize=preprocess.crop)
    views = np.stack([fit(picture(piece), whole) for piece in pieces])
    values = torch.from_numpy(views).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (whole.mean, whole.std))
    return ((values - mean) / std).contiguous(memory_format=torch.channels_last)


def cut(
    view: Callable[[int], np.ndarray], index: np.ndarray, boxes: np.ndarray
) -> list[np.ndarray]:
    """The pieces u8[H,W,3] of pictures i64[B] as ``view`` gives them, each in its box, i64[B,4]:
    left, top, right, bottom."""
    pairs = zip(index.tolist(), boxes.tolist(), strict=True)
    return [view(image)[top:bottom, left:right] for image, (left, top, right, bottom) in pairs]


def picture(piece: np.ndarray) -> Image.Image:
    """A piece u8[H,W,3] as an RGB image; BadInput when it is not one."""
    if piece.dtype != np.uint8 or piece.ndim != 3 or piece.shape[2] != 3 or not piece.size:
        raise BadInput("A piece of a picture to embed must be RGB and at least one pixel large.")
    return Image.fromarray(np.ascontiguousarray(piece))


def unit(rows: np.ndarray) -> np.ndarray:
    """f32[B,E]: rows over their length; zero rows stay zero."""
    rows = np.asarray(rows, np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1.0), np.float32)
