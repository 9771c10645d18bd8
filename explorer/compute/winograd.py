"""Transposed 3 x 3 convolutions with a third of the multiplications (Winograd 1980; Lavin and Gray
2016, arXiv 1509.09308), for float32 maps on a CPU; CUDA's libraries do the same by themselves.

A tile of 4 x 4 outputs takes 36 products for two channels instead of 144: Y = A^T (U V) A, where
V = B^T d B of a window of the maps and U = G g G^T of a kernel, and U V are plain matrix products
over the channels. Rounding is up to 5e-6 of the largest value, where that of a plain
convolution is 1e-6. So this takes relevance down, which is linear, and never makes what relevance
is divided by.
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

TILE, KERNEL = 4, 3
WINDOW = TILE + KERNEL - 1
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where polynomials are evaluated, and at infinity: of those tried, what loses fewest digits."""

LEAST_CHANNELS, LEAST_MAPS = 256, 32
"""With fewer channels the transforms cost what the products save; with fewer maps, that of the
weights does."""


def worth_it(maps: Tensor, weight: Tensor) -> bool:
    """Whether ``Transposed`` is quicker than ``conv_transpose2d`` with weights [O,I,3,3] for maps
    [N,O,H,W] like these."""
    suits = maps.dtype == torch.float32 and maps.device.type == "cpu"
    return suits and len(maps) >= LEAST_MAPS and min(weight.shape[:2]) >= LEAST_CHANNELS


class Transposed:
    """A transposed convolution by weights [O,I,3,3] with steps of one and a border of one zero.
    The transform of the weights, four times their size, is made when first needed."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, maps: Tensor) -> Tensor:
        """[N,I,H,W], channels last, of maps [N,O,H,W]."""
        count, outer, high, wide = maps.shape
        inner = self._weight.shape[1]
        into, _, out_of = _transforms()
        windows = _windows(maps)
        rows, columns = windows.shape[2:4]
        spread = (into @ windows.reshape(WINDOW**2, -1)).reshape(WINDOW**2, -1, outer)
        tiles = out_of @ torch.bmm(spread, self._kernels).reshape(WINDOW**2, -1)
        placed = tiles.reshape(TILE, TILE, rows, columns, count, inner).permute(4, 2, 0, 3, 1, 5)
        whole = placed.reshape(count, rows * TILE, columns * TILE, inner)
        return whole[:, :high, :wide].contiguous().permute(0, 3, 1, 2)

    @cached_property
    def _kernels(self) -> Tensor:
        """[36,O,I]"""
        outer, inner = self._weight.shape[:2]
        kernels = _transforms()[1] @ self._weight.reshape(-1, KERNEL**2).T
        return kernels.reshape(-1, outer, inner)


def _windows(maps: Tensor) -> Tensor:
    """[6,6,rows,columns,N,O]: overlapping windows of maps [N,O,H,W], a view of the padded maps."""
    count, outer, high, wide = maps.shape
    rows, columns = -(-high // TILE), -(-wide // TILE)
    padded = maps.new_zeros(rows * TILE + 2, columns * TILE + 2, count, outer)
    padded[1 : high + 1, 1 : wide + 1] = maps.permute(2, 3, 0, 1)
    down, over, *rest = padded.stride()
    shape = (WINDOW, WINDOW, rows, columns, count, outer)
    return padded.as_strided(shape, (down, over, TILE * down, TILE * over, *rest))


@cache
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """For windows and kernels laid out in rows: B (x) B [36,36], G (x) G [36,9] of the kernel
    turned by half a circle, as the convolution is transposed, and A (x) A [16,36]."""
    points = np.array(POINTS)
    apart = [each - np.delete(points, at) for at, each in enumerate(points)]
    others = [np.delete(points, at) for at in range(len(points))]
    powers = points[:, None] ** np.arange(TILE)
    window = np.zeros((WINDOW, WINDOW))
    window[:-1, :-1] = [np.poly(each)[::-1] for each in others]
    window[-1] = np.poly(points)[::-1]
    kernel = np.zeros((WINDOW, KERNEL))
    kernel[:-1] = powers[:, :KERNEL] / np.prod(apart, axis=1, keepdims=True)
    kernel[-1, -1] = 1.0
    tile = np.zeros((TILE, WINDOW))
    tile[:, :-1] = powers.T
    tile[-1, -1] = 1.0
    into, of_weights, out_of = (np.kron(each, each) for each in (window, kernel, tile))
    made = (into, of_weights[:, ::-1].copy(), out_of)
    first, second, third = (torch.from_numpy(each).float() for each in made)
    return first, second, third
