"""3 x 3 convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016, arXiv
1509.09308), for float32 maps on a CPU; CUDA's libraries do the same by themselves.

A tile of m x m outputs takes (m + 2)^2 products for two channels instead of 9 m^2: Y = A^T (U V) A,
where V = B^T d B of a window of the maps and U = G g G^T of a kernel, and U V are plain matrix
products over the channels. For m = 4 rounding is up to 6e-6 of the largest value, where that of a
plain convolution is 2e-6. Larger tiles lose more digits (m = 7: 3e-4 of maps of either sign). Only
where no weight is negative do they serve: there relevance (z-plus, ResNet50) is no further from
that in double precision than with plain convolutions. So those take relevance down, which is
linear, and never make what relevance is divided by.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from explorer.networks.cores import divided
from explorer.networks.laid_out import Bounds, Convolution, addresses
from explorer.networks.machine_code import Registers, once, registers
from explorer.networks.tile_code import TileCode

KERNEL = 3
LEAST, MOST = 4, 7
"""Sides of tiles; the larger ones where no weight is negative."""

POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, 2.0, -0.5, -0.75)
"""Where polynomials are evaluated, m + 1 of them, and at infinity: of those tried, what loses
fewest digits."""

LEAST_CHANNELS = 32
"""With fewer the transforms cost what the products save."""
WORTH = 0.7
"""Share of a plain convolution's products that may be left."""
TRANSFORM = 100
"""What transforming the weights takes, in tiles of a map."""
BLOCK, LARGE_BLOCK, LARGE = 48, 96, 1 << 24
"""Tiles that are worked out at once: what belongs to them stays in the cache. More where kernels of
so many bytes do not, and are read anew for each block."""


def suits(module: nn.Module, weight: Tensor, maps: Tensor) -> bool:
    """Whether a convolution of a module's form by weights [O,I,h,w], of maps of this type, can go
    in tiles here."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or module.groups != 1:
        return False
    outer, inner, *size = weight.shape
    even = size == [KERNEL, KERNEL] and module.stride == module.dilation == module.padding == (1, 1)
    single = weight.dtype == maps.dtype == torch.float32 and maps.device.type == "cpu"
    shape = registers()
    if not even or not single or shape is None or min(outer, inner) < LEAST_CHANNELS:
        return False
    return maps.dim() == 4 and outer % shape.lanes == inner % shape.lanes == 0


def side_for(maps: Tensor, most: int = LEAST, count: float = math.inf) -> int:
    """The side of the tiles, from LEAST to ``most``, that take fewest products for maps [N,C,H,W]
    like these; 0 if a plain convolution is as quick. Weights are laid out for ``count`` maps."""
    side = min(range(LEAST, most + 1), key=lambda side: share(maps, side, count))
    return side if share(maps, side, count) <= WORTH else 0


def share(maps: Tensor, side: int, count: float = math.inf) -> float:
    """Of a plain convolution's products, what tiles of a side take."""
    size = maps.shape[2:]
    tiles = math.prod(-(-length // side) for length in size)
    products = (side + KERNEL - 1) ** 2 * (tiles + TRANSFORM / count)
    return products / (KERNEL**2 * math.prod(size))


class Tiled(Convolution):
    """By weights [O,I,3,3] with a border of one zero, in tiles of a side. The transform of the
    weights is several times their size."""

    def __init__(self, weight: Tensor, side: int) -> None:
        super().__init__(weight)
        self.side = side
        self._code = _code(side, registers())

    def make(
        self, maps: Tensor, bias: Tensor, added: Tensor | None, made: Tensor, bounds: Bounds
    ) -> None:
        (count, _, high, wide), (outer, inner) = maps.shape, self.weight.shape[:2]
        nothing, planes = maps.new_zeros(max(inner, outer)), (self.side + 2) ** 2
        kernels = self._kernels
        block = BLOCK if kernels.nbytes < LARGE else LARGE_BLOCK
        at = addresses(maps, kernels, bias, added, made)
        sizes = high, wide, inner, outer, self.whole
        tiles = count * math.prod(-(-length // self.side) for length in (high, wide))

        def work(part: tuple[int, int]) -> None:
            spread = maps.new_empty(self._code.room(block, inner))
            products = maps.new_empty(self._code.room(block, self._padded))
            sink = maps.new_empty(outer)
            chosen = maps.new_empty(self._code.choices(inner, block))
            room = addresses(spread, products, nothing, sink, chosen)
            self._code.convolve(*at, *room, *sizes, *part, block, *bounds)

        divided(work, tiles, planes * inner * outer)

    @cached_property
    def _kernels(self) -> Tensor:
        """[(side + 2)^2,O / width,I,width]"""
        (outer, inner), planes = self.weight.shape[:2], (self.side + 2) ** 2
        width = self._code.shape.width
        weights = self.weight.permute(2, 3, 1, 0).contiguous()
        made = weights.new_empty((planes, self._padded // width, inner, width))
        if self._padded > outer:
            made.zero_()
        at = addresses(weights, made)
        each = 2 * KERNEL * planes * outer  # either side of a kernel's transform takes three each
        divided(lambda part: self._code.prepare(*at, inner, outer, *part), inner, each)
        return made

    @property
    def _padded(self) -> int:
        """How many channels there are in whole widths."""
        width = self._code.shape.width
        return -(-len(self.weight) // width) * width


@once
def _code(side: int, shape: Registers | None) -> TileCode:
    assert shape is not None, "this processor has no such registers"
    return TileCode(*_transforms(side), shape)


def _transforms(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T [n,n], G [n,3] and A^T [side,n], with n = side + 2."""
    points = np.array(POINTS[: side + 1])
    apart = [each - np.delete(points, at) for at, each in enumerate(points)]
    others = [np.delete(points, at) for at in range(len(points))]
    powers = points[:, None] ** np.arange(max(side, KERNEL))
    window = np.zeros((side + 2, side + 2))
    window[:-1, :-1] = [np.poly(each)[::-1] for each in others]
    window[-1] = np.poly(points)[::-1]
    kernel = np.zeros((side + 2, KERNEL))
    kernel[:-1] = powers[:, :KERNEL] / np.prod(apart, axis=1, keepdims=True)
    kernel[-1, -1] = 1.0
    tile = np.zeros((side, side + 2))
    tile[:, :-1] = powers[:, :side].T
    tile[-1, -1] = 1.0
    return window, kernel, tile
