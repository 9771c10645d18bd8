"""Convolutions over windows as matrix products, for float32 maps on a CPU: those that cannot go in
tiles, as they take steps or may lose no digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from explorer.networks.laid_out import (
    NO_BORDER,
    Bounds,
    Convolution,
    Taps,
    every,
    form_of,
    windows,
)
from explorer.networks.machine_code import Registers, once, registers
from explorer.networks.modules import Border
from explorer.networks.pointwise import LARGE_BLOCK, Pointwise, fits
from explorer.networks.window_code import WindowCode

LEAST_READ, LEAST_MADE = 32, 128
"""With fewer channels oneDNN is as quick: of those that are read values are copied, whose copies
serve for all that are made."""


def suits(module: nn.Module, weight: Tensor, maps: Tensor, more: Border = NO_BORDER) -> bool:
    """Whether a convolution of a module's form by weights [O,I,h,w], of maps of this type with some
    ``more`` border than the module's, can go this way here."""
    if not _known(module, weight, maps):
        return False
    step, border = form_of(module, more)
    down, across = windows(maps.shape[2:], weight, border, step)
    return min(down, across) > 0 and len(maps) * down * across >= _rows()


def suits_transposed(module: nn.Module, weight: Tensor, maps: Tensor, size: Sequence[int]) -> bool:
    """Whether the transposed convolution of a module's form by weights [O,I,h,w], of maps of this
    type to maps of a size, can go this way here."""
    if not _known(module, weight.transpose(0, 1), maps):
        return False
    taps, (step, _) = weight.shape[2:], form_of(module)
    places = len(maps) * math.prod(length // step for length in size)  # the fewest of one part
    return max(taps) > 1 and min(taps) >= step and places >= _rows()


def _known(module: nn.Module, weight: Tensor, maps: Tensor) -> bool:
    """Whether there is code for convolutions of a module's form, weights [O,I,h,w] and maps."""
    if type(module) is not nn.Conv2d or not isinstance(module.padding, tuple):
        return False
    dense = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    single = weight.dtype == maps.dtype == torch.float32 and maps.device.type == "cpu"
    shape, even = registers(), len(set(module.stride)) == 1
    if not (dense and even and single) or shape is None or not fits(len(weight), shape):
        return False
    return maps.dim() == 4 and weight.shape[1] >= LEAST_READ and len(weight) >= LEAST_MADE


def _rows() -> int:
    """How many places are made at once."""
    shape = registers()
    return 0 if shape is None else shape.rows


class Windowed(Pointwise):
    """By weights [O,I,h,w] with steps and a border."""

    def __init__(self, weight: Tensor, form: tuple[int, Border]) -> None:
        super().__init__(weight, form[0])
        self.border = form[1]

    def form(self, maps: Tensor) -> tuple[int, ...]:
        made = windows(maps.shape[2:], self.weight, self.border, self.step)
        return (len(maps), len(self.weight), *made)

    def _code(self, way: str) -> WindowCode:
        return _code(registers(), way)

    def _about(self) -> Sequence[int]:
        (above, _), (left, _) = self.border
        return *self.weight.shape[1:], above, left

    def _block(self) -> int:
        return LARGE_BLOCK


class Transposed(Convolution):
    """The transposed convolution by weights [O,I,h,w], which have a tap for each step at least, to
    maps of a ``size``. With steps of two, places between windows are made by other taps, so that it
    takes four plain convolutions, by a part of the kernels each."""

    def __init__(self, weight: Tensor, form: tuple[int, Border], size: Sequence[int]) -> None:
        step, border = form
        super().__init__(weight.transpose(0, 1), step)
        self._size = size
        given = windows(size, weight, border, step)
        axes = zip(weight.shape[2:], border, strict=True)
        each = ([every(at, step, taps, zeros) for at in range(step)] for taps, (zeros, _) in axes)
        self._parts = [self._part(pair, given) for pair in product(*each)]

    def _part(
        self, pair: Sequence[Taps], given: Sequence[int]
    ) -> tuple[Windowed, tuple[slice, ...]]:
        """The convolution by some lines and columns of taps of maps of the size ``given``, and the
        places it makes."""
        lines, columns = pair
        weight = self.weight.permute(2, 3, 1, 0)[list(lines.taps)][:, list(columns.taps)]
        down, across = (
            (each.before, each.after(length, there))
            for each, length, there in zip(pair, self._size, given, strict=True)
        )
        part = Windowed(weight.permute(3, 2, 0, 1), (1, (down, across)))
        return part, tuple(slice(each.first, None, each.apart) for each in pair)

    def form(self, maps: Tensor) -> tuple[int, ...]:
        return (len(maps), len(self.weight), *self._size)

    def make(
        self, maps: Tensor, bias: Tensor, added: Tensor | None, made: Tensor, bounds: Bounds
    ) -> None:
        for part, places in self._parts:
            more = None if added is None else added[:, :, *places]
            made[:, :, *places] = part(maps, bias, more, *bounds)


@once
def _code(shape: Registers | None, way: str) -> WindowCode:
    assert shape is not None, "this processor has no such registers"
    return WindowCode(shape, way)
