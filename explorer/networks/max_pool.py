"""The highest values of windows, for float32 maps on a CPU: PyTorch's max pooling also notes where
they are, asked or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor, nn

from explorer.networks.cores import READING, divided
from explorer.networks.laid_out import addresses
from explorer.networks.machine_code import (
    INT,
    Code,
    Registers,
    Takes,
    at,
    counting,
    once,
    registers,
    smaller,
)

POOL: Takes = (
    ("maps", "made"),
    ("high", "wide", "channels", "tall", "broad", "kernel", "step", "before", "first", "last"),
    (),
)


class MaxPool(nn.Module):
    """Max pooling by the quickest way for maps at hand."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Any:
        return highest(self.pool, x) if suits(self.pool, x) else self.pool(x)


def suits(pool: nn.MaxPool2d, maps: Tensor) -> bool:
    """Whether pooling of maps [N,C,H,W] can go this way here."""
    plain = pool.dilation == 1 and not pool.ceil_mode and not pool.return_indices
    if type(pool) is not nn.MaxPool2d or not plain or (shape := registers()) is None:
        return False
    if not all(isinstance(each, int) for each in _sizes(pool)):
        return False
    single = maps.dtype == torch.float32 and maps.device.type == "cpu" and maps.dim() == 4
    laid = single and maps.is_contiguous(memory_format=torch.channels_last)
    return laid and not maps.shape[1] % shape.width and min(maps.shape[2:]) >= _sizes(pool)[0]


def highest(pool: nn.MaxPool2d, maps: Tensor) -> Tensor:
    """[N,C,h,w], channels last, of maps [N,C,H,W] that lie so: to the bit what the module gives."""
    count, channels, high, wide = maps.shape
    kernel, step, before = _sizes(pool)
    tall, broad = ((length + 2 * before - kernel) // step + 1 for length in (high, wide))
    made = maps.new_empty((count, tall, broad, channels)).permute(0, 3, 1, 2)
    code, at = _code(registers()), addresses(maps, made)
    sizes = high, wide, channels, tall, broad, kernel, step, before

    def work(part: tuple[int, int]) -> None:
        code.pool(*at, *sizes, *part)

    divided(work, count * tall, READING * channels * broad * step**2)
    return made


class MaxPoolCode(Code):
    """``pool`` makes the lines from ``first`` to ``last`` of maps [N,tall,broad,channels], the
    highest values of maps [N,high,wide,channels] in windows of ``kernel`` lines and columns, the
    first of which begins so many ``before`` the first place, with a ``step`` from one to the next.
    Channels are a multiple of the registers' width."""

    def __init__(self, shape: Registers) -> None:
        super().__init__(shape)
        self._write()
        (self.pool,) = self.compiled(pool=POOL)

    def _write(self) -> None:
        b, it = self.function("pool", POOL)
        kept = [b.alloca(self.vector) for _ in self.offsets]
        with (
            counting(b, it.first, it.last) as line,
            counting(b, INT(0), it.broad) as x,
            counting(b, INT(0), it.channels, INT(self.shape.width)) as channel,
        ):
            picture, y = b.sdiv(line, it.tall), b.srem(line, it.tall)
            top, bottom = _window(b, it, y, it.high)
            left, right = _window(b, it, x, it.wide)
            for each in kept:
                b.store(self.all(-float("inf")), each)
            with counting(b, top, bottom) as row, counting(b, left, right) as column:
                place = b.add(b.mul(b.add(b.mul(picture, it.high), row), it.wide), column)
                self._look(b, at(b, it.maps, b.mul(place, it.channels), channel), kept)
            end = b.mul(b.add(b.mul(line, it.broad), x), it.channels)
            for offset, each in zip(self.offsets, kept, strict=True):
                self.store(b, b.load(each), at(b, it.made, end, channel, INT(offset)))
        b.ret_void()

    def _look(self, b: ir.IRBuilder, here: Any, kept: list[Any]) -> None:
        """What is higher than before it, or no number, is kept."""
        for offset, each in zip(self.offsets, kept, strict=True):
            value, before = self.load(b, at(b, here, INT(offset))), b.load(each)
            higher = b.fcmp_ordered(">", value, before)
            none = b.fcmp_unordered("uno", value, value)
            b.store(b.select(b.or_(higher, none), value, before), each)


def _sizes(pool: nn.MaxPool2d) -> tuple[Any, Any, Any]:
    return pool.kernel_size, pool.stride, pool.padding


def _window(b: ir.IRBuilder, it: SimpleNamespace, number: Any, size: Any) -> tuple[Any, Any]:
    """Where the window of that number begins and ends, as far as it is inside."""
    first = b.sub(b.mul(number, it.step), it.before)
    last = smaller(b, b.add(first, it.kernel), size)
    return b.select(b.icmp_signed("<", first, INT(0)), INT(0), first), last


@once
def _code(shape: Registers | None) -> MaxPoolCode:
    assert shape is not None, "this processor has no such registers"
    return MaxPoolCode(shape)
