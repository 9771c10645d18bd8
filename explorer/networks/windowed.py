"""Convolutions over windows as matrix products, for float32 maps on a CPU: those that cannot go in
tiles, as they take steps or may lose no digits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explorer.networks.laid_out import NO_BORDER, Border, form_of, windows
from explorer.networks.machine_code import Registers, once, registers
from explorer.networks.pointwise import LARGE_BLOCK, Pointwise, fits
from explorer.networks.window_code import WindowCode

LEAST_READ, LEAST_MADE = 32, 128
"""With fewer channels oneDNN is as quick: of those that are read values are copied, whose copies
serve for all that are made."""


def suits(module: nn.Module, weight: Tensor, maps: Tensor, more: Border = NO_BORDER) -> bool:
    """Whether a convolution of a module's form by weights [O,I,h,w], of maps of this type with some
    ``more`` border than the module's, can go this way here."""
    if type(module) is not nn.Conv2d or not isinstance(module.padding, tuple):
        return False
    dense = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    single = weight.dtype == maps.dtype == torch.float32 and maps.device.type == "cpu"
    shape, even = registers(), len(set(module.stride)) == 1
    if not (dense and even and single) or shape is None or not fits(len(weight), shape):
        return False
    if maps.dim() != 4 or weight.shape[1] < LEAST_READ or len(weight) < LEAST_MADE:
        return False
    step, border = form_of(module, more)
    down, across = windows(maps.shape[2:], weight, border, step)
    return min(down, across) > 0 and len(maps) * down * across >= shape.rows


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


@once
def _code(shape: Registers | None, way: str) -> WindowCode:
    assert shape is not None, "this processor has no such registers"
    return WindowCode(shape, way)
