"""Depthwise convolutions, in which each channel sees itself alone, and how they are transposed, for
float32 maps on a CPU: one and a half times as quick as oneDNN's where maps are in the cache, and
bound by memory where not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product

import torch
from torch import Tensor, nn

from explorer.networks.cores import divided
from explorer.networks.depth_code import DepthCode
from explorer.networks.laid_out import (
    NO_BORDER,
    Bounds,
    Ending,
    Pair,
    Taps,
    addresses,
    every,
    form_of,
    goes_past,
    windows,
)
from explorer.networks.machine_code import (
    LINE,
    Registers,
    once,
    registers,
    second_cache,
)
from explorer.networks.modules import Border, Surrounded

MOST_TAPS, MOST_STEPS = 7, 2
"""Of kernels that there are registers for."""
COLUMNS, BEGINNING, LEAST_TAPS = (7, 4), 2, 3
"""Places of a line that are made at once, and what it takes to begin with some, in places. A line
has so many taps at least, and an odd number: so there is less code to make."""
BANDS = 4
"""Parts of a picture that a core may take."""

_Grid = tuple[Taps, Taps, Tensor]
"""By which taps, for lines and for columns, some places are made, and kernels [h,w,C] of these."""


def suits(module: nn.Module, weight: Tensor, maps: Tensor, more: Border = NO_BORDER) -> bool:
    """Whether a convolution of a module's form by weights [C,1,h,w], of maps of this type with some
    ``more`` border than the module's, can go this way here."""
    if not isinstance(module, nn.Conv2d) or type(module) not in (nn.Conv2d, Surrounded):
        return False
    if not isinstance(module.padding, tuple):
        return False
    channels, steps = module.in_channels, set(module.stride)
    alone = 1 < channels == module.groups == module.out_channels
    alone = alone and weight.shape == (channels, 1, *module.kernel_size)
    even = len(steps) == 1 and max(steps) <= MOST_STEPS and module.dilation == (1, 1)
    small = max(module.kernel_size) <= MOST_TAPS and module.padding_mode == "zeros"
    single = weight.dtype == maps.dtype == torch.float32 and maps.device.type == "cpu"
    if not (alone and even and small and single) or channels % LINE or registers() is None:
        return False
    return maps.dim() == 4 and min(windows(maps.shape[2:], weight, form_of(module, more)[1])) > 0


class Depthwise(Ending):
    """By weights [C,1,h,w] with steps and a border."""

    def __init__(self, weight: Tensor, form: tuple[int, Border]) -> None:
        super().__init__(weight, form[0])
        self._border = form[1]

    @property
    def inner(self) -> int:
        return len(self.weight)

    def form(self, maps: Tensor) -> tuple[int, ...]:
        made = windows(maps.shape[2:], self.weight, self._border, self.step)
        return (*maps.shape[:2], *made)

    def _grids(self) -> Iterator[tuple[Taps, Taps]]:
        """By which taps, for lines and for columns, which places are made."""
        pairs = zip(self.weight.shape[2:], self._border, strict=True)
        lines, columns = (Taps(tuple(range(taps)), before) for taps, (before, _) in pairs)
        yield lines, columns

    @cached_property
    def _laid_out(self) -> list[_Grid]:
        """What makes all places; a line of a kernel has zeros after its taps."""
        found = []
        weights = self.weight[:, 0].permute(1, 2, 0).contiguous()
        for lines, columns in self._grids():
            across = max(LEAST_TAPS, len(columns.taps) | 1)
            kernels = weights.new_zeros((len(lines.taps), across, weights.shape[2]))
            chosen = weights[list(lines.taps)][:, list(columns.taps)]
            kernels[:, : len(columns.taps)] = chosen
            found.append((lines, columns, kernels))
        return found

    def convolve(
        self,
        way: str,
        maps: Tensor,
        bias: Tensor,
        others: Sequence[Tensor | None],
        made: Tensor,
        bounds: Bounds,
    ) -> None:
        count, _, tall, broad = made.shape
        large = made[0].nbytes + maps[0].nbytes > 2 * second_cache()
        caching = int(large), int(goes_past(made))
        grids = []
        laid_out = self._laid_out
        for grid in laid_out:
            lines, columns, _ = grid
            size = lines.places(tall), columns.places(broad)
            if min(size) > 0:
                code, given = self._call(way, grid, size, maps, bias, others, made)
                grids.append((code, [*given, *caching], count * size[0]))
        units = count * BANDS
        each = units if len(grids) == 1 or not large else BANDS

        def work(part: Pair) -> None:
            for start in range(*part, each):
                end = min(start + each, part[1])
                for code, given, lines in grids:  # all of a picture while it is in the cache
                    first, last = (lines * unit // units for unit in (start, end))
                    if first < last:
                        code.convolve(*given, first, last, *bounds)

        divided(work, units, made[0].numel() * self.weight[0].numel() // BANDS)

    def _call(
        self,
        way: str,
        grid: _Grid,
        size: Pair,
        maps: Tensor,
        bias: Tensor,
        others: Sequence[Tensor | None],
        made: Tensor,
    ) -> tuple[DepthCode, list[int | None]]:
        """The code that makes some places, and what it is given before it is told which lines."""
        lines, columns, kernels = grid
        _, channels, tall, broad = made.shape
        code = _code(registers(), kernels.shape[1], self._jump, _at_once(size[1]), way)
        start = 4 * (lines.first * broad + columns.first) * channels
        ends = [at and at + start for at in addresses(*others, made)]
        sizes = channels, *maps.shape[2:], *size, len(lines.taps) if columns.taps else 0
        apart = channels * broad * lines.apart, channels * columns.apart
        numbers = *sizes, lines.before, columns.before, channels * tall * broad, *apart
        return code, [*addresses(maps, kernels, bias), *ends, *numbers]

    @property
    def _jump(self) -> int:
        """From one window to the next."""
        return self.step


class Transposed(Depthwise):
    """The transposed convolution, to maps of a ``size``. With steps of two, the places between two
    windows are made by every other tap each."""

    def __init__(self, weight: Tensor, form: tuple[int, Border], size: Sequence[int]) -> None:
        super().__init__(weight, form)
        self._size = size

    def form(self, maps: Tensor) -> tuple[int, ...]:
        return (*maps.shape[:2], *self._size)

    def _grids(self) -> Iterator[tuple[Taps, Taps]]:
        pairs = zip(self.weight.shape[2:], self._border, strict=True)
        first = range(self.step)
        axes = [[every(at, self.step, taps, zeros) for at in first] for taps, (zeros, _) in pairs]
        yield from product(*axes)

    @property
    def _jump(self) -> int:
        return 1


def _at_once(places: int) -> int:
    """How many places of a line of so many are made at once: those that are left over are made
    twice."""
    fits = [count for count in COLUMNS if count <= places] or [places]
    return min(fits, key=lambda count: -(-places // count) * (count + BEGINNING))


@once
def _code(shape: Registers | None, across: int, step: int, columns: int, way: str) -> DepthCode:
    assert shape is not None, "this processor has no such registers"
    return DepthCode(shape, across, step, columns, way)
