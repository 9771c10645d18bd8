"""What convolutions by machine code have in common: weights that are laid out for it, and maps that
lie channels last."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from explorer.networks.machine_code import ADDING, LINE, PLAIN, SCALING
from explorer.networks.modules import Border, Surrounded

STREAM = 1 << 23
"""Maps of more bytes do not stay in the cache until they are read."""

Pair = tuple[int, int]
NO_BORDER: Border = ((0, 0), (0, 0))
Bounds = tuple[float, float]
"""Values are no less and no more than these."""
UNBOUND = (-math.inf, math.inf)


@dataclass(frozen=True)
class Taps:
    """Some taps of a kernel along one axis, by which every ``apart``-th place from ``first`` on is
    made; the first window begins so many places ``before`` the maps."""

    taps: tuple[int, ...]
    before: int
    first: int = 0
    apart: int = 1

    def places(self, length: int) -> int:
        """How many of so many places are made."""
        return max(0, -(-(length - self.first) // self.apart))

    def after(self, length: int, given: int) -> int:
        """How many places after ``given`` ones the last of those windows reaches; fewer than none
        where it does not come to their end."""
        return self.places(length) - 1 + len(self.taps) - given - self.before


class Convolution(ABC):
    """A convolution of float32 maps on a CPU by weights [O,I,h,w] that gives a value for every
    ``step``-th of their lines and columns, unless its ``form`` is another. What is laid out of the
    weights is made when first needed."""

    def __init__(self, weight: Tensor, step: int = 1) -> None:
        self.weight = weight.detach()
        self.step = step

    def __call__(
        self,
        maps: Tensor,
        bias: Tensor | None = None,
        added: Tensor | None = None,
        least: float = -math.inf,
        most: float = math.inf,
        over: bool = False,
    ) -> Tensor:
        """[N,O,h,w], channels last, of maps [N,I,H,W], plus ``bias`` [O] and ``added`` [N,O,h,w],
        which may be written ``over``, no less than ``least`` and no more than ``most``. A value
        depends on nothing but what the kernel sees of its picture. Raises ValueError where forms do
        not fit, as machine code would not."""
        count, outer, high, wide = form = self.form(maps)
        fits = bias is None or bias.shape == (outer,)
        if maps.shape[1] != self.inner or not fits or (added is not None and added.shape != form):
            raise ValueError(f"weights {tuple(self.weight.shape)} do not fit {tuple(maps.shape)}")
        maps = laid(maps)
        bias = maps.new_zeros(outer) if bias is None else bias.contiguous()
        added = None if added is None else laid(added)
        if added is not None and over and self.makes_once(maps):
            made = added
        else:
            made = maps.new_empty((count, high, wide, outer)).permute(0, 3, 1, 2)
        self.make(maps, bias, added, made, (least, most))
        return made

    def scaled(self, maps: Tensor, by: Tensor, below: Tensor) -> Tensor:
        """[N,O,h,w], channels last, of maps [N,I,H,W], times ``by`` and divided by ``below``, which
        are of the form of that. Raises ValueError as a call does."""
        if maps.shape[1] != self.inner or not by.shape == below.shape == self.form(maps):
            raise ValueError(f"{tuple(by.shape)} does not fit {tuple(maps.shape)}")
        by = laid(by)
        made = torch.empty_like(by)
        self.scale(laid(maps), by, laid(below), made)
        return made

    def scale(self, maps: Tensor, by: Tensor, below: Tensor, made: Tensor) -> None:
        """Fill ``made`` with what is scaled."""
        self.make(maps, maps.new_zeros(len(self.weight)), None, made, UNBOUND)
        made.mul_(by).div_(below)

    @property
    def inner(self) -> int:
        """How many channels are read."""
        return self.weight.shape[1]

    def form(self, maps: Tensor) -> tuple[int, ...]:
        """(N, O, h, w): of what is made of maps [N,I,H,W]."""
        sizes = (-(-length // self.step) for length in maps.shape[2:])
        return (len(maps), len(self.weight), *sizes)

    def makes_once(self, maps: Tensor) -> bool:
        """Whether no value is made twice, so that what is added need not be there any more."""
        return True

    @cached_property
    def whole(self) -> bool:
        """Whether products with zero count, as not all weights are finite."""
        return not math.isfinite(float(self.weight.sum()))

    @abstractmethod
    def make(
        self, maps: Tensor, bias: Tensor, added: Tensor | None, made: Tensor, bounds: Bounds
    ) -> None:
        """Fill ``made``, which may be what is added."""


class Ending(Convolution):
    """One whose code ends values in any of the ways that there are."""

    def make(
        self, maps: Tensor, bias: Tensor, added: Tensor | None, made: Tensor, bounds: Bounds
    ) -> None:
        way = PLAIN if added is None else ADDING
        self.convolve(way, maps, bias, (added, None), made, bounds)

    def scale(self, maps: Tensor, by: Tensor, below: Tensor, made: Tensor) -> None:
        bias = maps.new_zeros(len(self.weight))
        self.convolve(SCALING, maps, bias, (by, below), made, UNBOUND)

    @abstractmethod
    def convolve(
        self,
        way: str,
        maps: Tensor,
        bias: Tensor,
        others: Sequence[Tensor | None],
        made: Tensor,
        bounds: Bounds,
    ) -> None:
        """Fill ``made`` with values that end in a way, by two ``others`` as that has them."""


def form_of(module: nn.Module, more: Border = NO_BORDER) -> tuple[int, Border]:
    """The steps of a convolution, the same down and across, and its border with some more."""
    steps, own = cast(Pair, module.stride), cast(Pair, module.padding)
    around = module.more if isinstance(module, Surrounded) else NO_BORDER
    lines, columns = (
        (zeros + before + one, zeros + after + two)
        for zeros, (before, after), (one, two) in zip(own, around, more, strict=True)
    )
    return steps[0], (lines, columns)


def windows(size: Sequence[int], weight: Tensor, border: Border, step: int = 1) -> Pair:
    """How many lines and columns a convolution makes of maps of a size with a border by weights
    [O,I,h,w]."""
    sizes = zip(size, weight.shape[2:], border, strict=True)
    down, across = ((length + sum(zeros) - taps) // step + 1 for length, taps, zeros in sizes)
    return down, across


def every(first: int, step: int, taps: int, zeros: int) -> Taps:
    """By which taps a transposed convolution makes every ``step``-th place from ``first`` on: place
    p is read by tap k of window (p + zeros - k) / step, where that is whole."""
    lowest = (first + zeros) % step
    own = tuple(range(lowest, taps, step))[::-1]
    window = (first + zeros - lowest) // step
    return Taps(own, len(own) - 1 - window, first, step)


def laid(maps: Tensor) -> Tensor:
    """Maps that lie channels last."""
    return maps.contiguous(memory_format=torch.channels_last)


def goes_past(made: Tensor) -> bool:
    """Whether maps are better written past the cache: they would push each other out of it."""
    return made.nbytes > STREAM and made.data_ptr() % (4 * LINE) == 0


def addresses(*tensors: Tensor | None) -> list[int | None]:
    """Where tensors lie, as long as somebody holds them: who asks, in a variable of their own. A
    cached property may be made by two threads at once, from Python 3.12 on, and the first is let go
    while it is in use."""
    return [None if each is None else each.data_ptr() for each in tensors]
