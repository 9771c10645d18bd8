"""Transposed 3 x 3 convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016,
arXiv 1509.09308), for float32 maps on a CPU; CUDA's libraries do the same by themselves.

A tile of m x m outputs takes (m + 2)^2 products for two channels instead of 9 m^2: Y = A^T (U V) A,
where V = B^T d B of a window of the maps and U = G g G^T of a kernel, and U V are plain matrix
products over the channels. For m = 4 rounding is up to 5e-6 of the largest value, where that of a
plain convolution is 2e-6. Larger tiles lose more digits (m = 7: 2e-4 of maps of either sign). Only
where no weight is negative do they serve: there relevance (z-plus, ResNet50) is no further from
that in double precision than with plain convolutions. So this takes relevance down, which is
linear, and never makes what relevance is divided by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

KERNEL = 3
LEAST, MOST = 4, 7
"""Sides of tiles; the larger ones where no weight is negative."""

POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, 2.0, -0.5, -0.75)
"""Where polynomials are evaluated, m + 1 of them, and at infinity: of those tried, what loses
fewest digits."""

TRANSFORM = 200
"""What transforming the weights takes, in tiles of a map."""

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
    The transform of the weights, several times their size, is made when first needed."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._made: dict[int, Tensor] = {}

    def __call__(self, maps: Tensor) -> Tensor:
        """[N,I,H,W] of maps [N,O,H,W]."""
        count, _, *size = maps.shape
        tile = self._tile(count, size)
        into, _, out_of = _transforms(tile)
        kernels = self._kernels(tile)
        if tile >= max(size):
            high, wide = size
            border = into.reshape(len(into), tile + 2, -1)
            into = border[:, 1 : high + 1, 1 : wide + 1].flatten(1)
            out_of = out_of.reshape(tile, tile, -1)[:high, :wide].flatten(0, 1)
            laid = maps.permute(2, 3, 0, 1).reshape(high * wide, -1)
            tiles = _multiplied(into, laid, kernels, out_of)
            return tiles.reshape(high, wide, count, -1).permute(2, 3, 0, 1)
        windows = _windows(maps, tile)
        rows, columns = windows.shape[2:4]
        tiles = _multiplied(into, windows.reshape(len(into), -1), kernels, out_of)
        placed = tiles.reshape(tile, tile, rows, columns, count, -1).permute(4, 2, 0, 3, 1, 5)
        whole = placed.reshape(count, rows * tile, columns * tile, -1)
        return whole[:, : size[0], : size[1]].contiguous().permute(0, 3, 1, 2)

    def _tile(self, count: int, size: Sequence[int]) -> int:
        """The side of the tiles that take fewest products for so many maps of a size."""

        def products(tile: int) -> int:
            tiles = math.prod(-(-side // tile) for side in size)
            return (tile + KERNEL - 1) ** 2 * (count * tiles + TRANSFORM)

        return min(range(LEAST, (LEAST if self._signed else MOST) + 1), key=products)

    @cached_property
    def _signed(self) -> bool:
        return bool(self._weight.amin() < 0)

    def _kernels(self, tile: int) -> Tensor:
        """[(tile + 2)^2,O,I]"""
        if tile not in self._made:
            outer, inner = self._weight.shape[:2]
            kernels = _transforms(tile)[1] @ self._weight.reshape(-1, KERNEL**2).T
            self._made[tile] = kernels.reshape(-1, outer, inner)
        return self._made[tile]


def _multiplied(into: Tensor, windows: Tensor, kernels: Tensor, out_of: Tensor) -> Tensor:
    """Tiles [.., M I] of windows [.., M O], by the transforms and kernels [n,O,I] of one size."""
    spread = (into @ windows).reshape(len(kernels), -1, kernels.shape[1])
    return out_of @ torch.bmm(spread, kernels).reshape(len(kernels), -1)


def _windows(maps: Tensor, tile: int) -> Tensor:
    """[tile + 2,tile + 2,rows,columns,N,O]: overlapping windows of maps [N,O,H,W], a view of the
    padded maps."""
    count, outer, high, wide = maps.shape
    rows, columns, side = -(-high // tile), -(-wide // tile), tile + KERNEL - 1
    padded = maps.new_zeros(rows * tile + 2, columns * tile + 2, count, outer)
    padded[1 : high + 1, 1 : wide + 1] = maps.permute(2, 3, 0, 1)
    down, over, *rest = padded.stride()
    shape = (side, side, rows, columns, count, outer)
    return padded.as_strided(shape, (down, over, tile * down, tile * over, *rest))


@cache
def _transforms(tile: int) -> tuple[Tensor, Tensor, Tensor]:
    """For windows and kernels laid out in rows, with n = (tile + 2)^2: B (x) B [n,n], G (x) G [n,9]
    of the kernel turned by half a circle, as the convolution is transposed, and A (x) A
    [tile^2,n]."""
    points = np.array(POINTS[: tile + 1])
    side = len(points) + 1
    apart = [each - np.delete(points, at) for at, each in enumerate(points)]
    others = [np.delete(points, at) for at in range(len(points))]
    powers = points[:, None] ** np.arange(tile)
    window = np.zeros((side, side))
    window[:-1, :-1] = [np.poly(each)[::-1] for each in others]
    window[-1] = np.poly(points)[::-1]
    kernel = np.zeros((side, KERNEL))
    kernel[:-1] = powers[:, :KERNEL] / np.prod(apart, axis=1, keepdims=True)
    kernel[-1, -1] = 1.0
    out_of = np.zeros((tile, side))
    out_of[:, :-1] = powers.T
    out_of[-1, -1] = 1.0
    into, of_weights, onto = (np.kron(each, each) for each in (window, kernel, out_of))
    made = (into, of_weights[:, ::-1].copy(), onto)
    first, second, third = (torch.from_numpy(each).float() for each in made)
    return first, second, third
