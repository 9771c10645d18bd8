"""From a heat map of pixels to the square that a neuron looks at (PURE's crop rule) and to the
small map that is drawn over the picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 56
"""Pixels a side of the stored map."""

KERNEL, SIGMA, THRESHOLD = 5, 1.1, 0.02
"""The crop: blur, and how strong a pixel is, relative to the strongest, to lie in the box."""

DRAWN_SIGMA = 8.0
"""The blur of the drawn map, in pixels of the picture (the paper's figures: kernel 51)."""


def boxes_and_heat(heat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes i32[K,4], maps u8[K,S,S] and degenerate bool[K] of relevance f32[K,H,W].

    Box: with h = |blurred| / max, the bounding box of h > 0.02 (left, top, right, bottom, the end
    exclusive), its shorter side extended evenly on both sides to the longer. What would lie left
    of or above the picture shifts the box back in; what lies right of or below it is cut off, so
    nothing is ever padded and only there a box may be oblong. Where the map is not finite, nowhere
    above the least normal number or has a box of one pixel, the box is the whole picture and
    ``degenerate`` true.
    Map: blurred with sigma 8 pixels, magnitude over its maximum, 255 = strongest, S = 56; zero
    where the relevance is not finite or so small. The mask of a picture is map > 0.02 * 255.
    """
    maps = torch.from_numpy(np.ascontiguousarray(heat, dtype=np.float32))
    strongest = maps.abs().amax((1, 2), keepdim=True)
    usable = strongest.isfinite() & (strongest >= torch.finfo(maps.dtype).tiny)
    maps = torch.where(usable, maps, torch.zeros(()))
    box, empty = _boxes(_strength(_blur(maps, KERNEL, SIGMA)) > THRESHOLD)
    return box.numpy(), _drawn(maps).numpy(), empty.numpy()


def _drawn(maps: Tensor) -> Tensor:
    """u8[K,S,S]: reduced first and blurred there, which is the same map at a hundredth the cost."""
    small = F.adaptive_avg_pool2d(maps[:, None], SIDE)[:, 0]
    sigma = DRAWN_SIGMA * SIDE / maps.shape[-1]
    strength = _strength(_blur(small, 2 * round(3 * sigma) + 1, sigma))
    return (strength * 255).round().to(torch.uint8)


def _strength(maps: Tensor) -> Tensor:
    """|h| / max |h| of each map; zero where the map is zero."""
    strength = maps.abs()
    highest = strength.amax((1, 2), keepdim=True)
    return strength / torch.where(highest > 0, highest, torch.ones(()))


def _blur(maps: Tensor, kernel: int, sigma: float) -> Tensor:
    """Gaussian blur of [K,H,W], reflected at the border."""
    reach = torch.arange(kernel, dtype=torch.float32) - kernel // 2
    weight = torch.exp(-0.5 * (reach / sigma) ** 2)
    weight = weight / weight.sum()
    half = kernel // 2
    padded = F.pad(maps[:, None], (half, half, half, half), mode="reflect")
    down = F.conv2d(padded, weight.reshape(1, 1, kernel, 1))
    return F.conv2d(down, weight.reshape(1, 1, 1, kernel))[:, 0]


def _boxes(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes i32[K,4] around what is inside (bool[K,H,W]), made square, and which are empty."""
    height, width = inside.shape[1:]
    left, right = _extent(inside.any(1))
    top, bottom = _extent(inside.any(2))
    empty = (right - left <= 1) & (bottom - top <= 1)
    longer = torch.maximum(right - left, bottom - top)
    left, right = _grown(left, right, longer, width)
    top, bottom = _grown(top, bottom, longer, height)
    whole = torch.tensor([0, 0, width, height])
    box = torch.where(empty[:, None], whole, torch.stack([left, top, right, bottom], 1))
    return box.to(torch.int32), empty


def _extent(inside: Tensor) -> tuple[Tensor, Tensor]:
    """First true place and one past the last of bool[K,N]; both 0 where there is none."""
    some = inside.any(1)
    first = inside.int().argmax(1)
    end = inside.shape[1] - inside.int().flip(1).argmax(1)
    return first * some, end * some


def _grown(start: Tensor, end: Tensor, length: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """An interval grown evenly to a length, shifted to start at 0 or later, cut at the limit."""
    grown = start - (length - (end - start)) // 2
    grown = grown.clamp(min=0)
    return grown, (grown + length).clamp(max=limit)
