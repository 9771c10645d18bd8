"""1 x 1 convolutions as matrix products with what follows in the same pass, for float32 maps on a
CPU: as quick as those of oneDNN or quicker, most so where another map is added and where places
next to each other share channels that are closed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from explorer.networks.cores import divided
from explorer.networks.laid_out import Bounds, Ending, addresses, goes_past
from explorer.networks.machine_code import (
    Registers,
    once,
    registers,
    second_cache,
)
from explorer.networks.point_code import PointCode

BLOCK, SMALL_BLOCK, LARGE_BLOCK, DEEP = 48, 12, 96, 256
"""Places that are worked out at once: what belongs to them stays in the cache. More where the
weights do not, and are read anew for each block; fewer where they do, and a place has so many
channels at least."""
MOST_MADE = 1.34
"""So many channels may be made for each, where some are made twice."""


def suits(module: nn.Module, weight: Tensor, maps: Tensor) -> bool:
    """Whether a convolution of a module's form by weights [O,I,h,w], of maps of this type, can go
    this way here."""
    if type(module) is not nn.Conv2d or module.groups != 1 or module.kernel_size != (1, 1):
        return False
    even = len(set(module.stride)) == 1 and module.padding == (0, 0)
    single = weight.dtype == maps.dtype == torch.float32 and maps.device.type == "cpu"
    shape = registers()
    if not even or not single or shape is None or not fits(len(weight), shape):
        return False
    return maps.dim() == 4 and _places(maps, module.stride[0]) >= shape.rows


class Pointwise(Ending):
    """By weights [O,I,1,1], of every ``step``-th line and column of maps, if these are as many
    places as registers have rows at least."""

    def makes_once(self, maps: Tensor) -> bool:
        """Where rows of registers are left over, the last places are made twice, and so are
        channels."""
        count, outer, *size = self.form(maps)
        return not count * math.prod(size) % _shape().rows and not outer % _shape().width

    def convolve(
        self,
        way: str,
        maps: Tensor,
        bias: Tensor,
        others: Sequence[Tensor | None],
        made: Tensor,
        bounds: Bounds,
    ) -> None:
        code, outer, inner = self._code(way), len(self.weight), self.weight[0].numel()
        rows, places = code.shape.rows, len(made) * math.prod(made.shape[2:])
        if 0 < places < rows:
            raise ValueError(f"{places} places are too few for code that makes {rows} at once")
        groups, block, kernels = places // rows, self._block(), self._kernels
        at = addresses(maps, kernels, bias, *others, made)
        past = made is not others[0] and goes_past(made)
        about = *self._about(), inner, outer
        sizes = *about, *maps.shape[2:], self.step, *made.shape[2:], self.whole, past

        def work(part: tuple[int, int]) -> None:
            first, last = part
            end = places if last == groups else rows * last
            chosen = maps.new_empty(code.choices(inner, block))
            code.convolve(*at, *addresses(chosen), *sizes, rows * first, end, block, *bounds)

        divided(work, groups, rows * inner * outer)

    def _code(self, way: str) -> PointCode:
        return _code(_shape(), self.step == 1, way)

    def _about(self) -> Sequence[int]:
        """What the code is told first."""
        return ()

    def _block(self) -> int:
        if 2 * self.weight.nbytes > second_cache():
            return LARGE_BLOCK
        return BLOCK if self.weight[0].numel() < DEEP else SMALL_BLOCK

    @cached_property
    def _kernels(self) -> Tensor:
        """[O / width,h,w,I,width]"""
        (outer, inner, high, wide), width = self.weight.shape, _shape().width
        panels, weights = outer // width, self.weight.permute(2, 3, 1, 0)
        made = weights.new_empty(-(-outer // width), high, wide, inner, width)
        whole = weights[..., : panels * width].reshape(high, wide, inner, panels, width)
        made[:panels] = whole.movedim(-2, 0)
        made[panels:] = weights[..., -width:]
        return made


def _places(maps: Tensor, step: int) -> int:
    """How many places of all maps are read."""
    return len(maps) * math.prod(-(-length // step) for length in maps.shape[2:])


def fits(outer: int, shape: Registers) -> bool:
    """Whether so many channels fill registers: of some, the last are made twice."""
    if not shape.copies or outer < shape.width:
        return outer % shape.width == 0
    return outer % shape.lanes == 0 and -(-outer // shape.width) * shape.width <= MOST_MADE * outer


def _shape() -> Registers:
    found = registers()
    assert found is not None, "this processor has no such registers"
    return found


@once
def _code(shape: Registers, every: bool, way: str) -> PointCode:
    return PointCode(shape, every, way)
