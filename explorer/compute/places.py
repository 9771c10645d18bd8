"""Transposed convolutions place by place, without what is zero.

Of the channels of a picture a rectifier closes half or more at any one place, others at each. There
no relevance is, whatever neuron it starts from, and where it goes to such channels, none is wanted.
So where many neurons cite one picture, each place below is a matrix product of the channels that
are open above it with the rows and columns of the weights between those and the ones open here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain, product
from typing import cast

import torch
from torch import Tensor, nn

from explorer.compute.pulls import Later, Product
from explorer.networks import winograd
from explorer.networks.cores import divided
from explorer.networks.laid_out import addresses
from explorer.networks.machine_code import LINE, Registers, once, registers
from explorer.networks.open_channels import RECORD
from explorer.networks.place_code import LINES, PlaceCode

LEAST_TURNS, LEAST_WEIGHTS = 8, 1 << 16
"""Fewer turns do not fill a register; fewer weights take less than what goes before and after."""

LISTS = 8
"""What reading weights and looking for what is open takes, in turns."""

POINTS, OTHERS = 0.9, 1.5
"""So many times the products of the other way down may be left: of 1 x 1 convolutions, which leaves
out zeros too, and of others."""

TURNS = 128
"""At once: what belongs to them at a place stays in the second cache."""

Pair = tuple[int, int]

Sources = Sequence[Pair]
"""Places above, of all images, each with the tap of the kernel by which it is read."""


class Transposed:
    """The transposed convolution of a module without groups by weights [O,I,h,w], down to maps of
    a size. Where ``wanted`` [B,I,H,W] is zero, so is what comes (None: nowhere). The other way down
    is by ``tiles`` of at most such a side, if not 0."""

    def __init__(
        self,
        module: nn.Module,
        weight: Tensor,
        size: Sequence[int],
        wanted: Tensor | None,
        tiles: int = 0,
    ) -> None:
        self._geometry = tuple(
            cast(Pair, each)
            for each in (weight.shape[2:], module.stride, module.padding, module.dilation)
        )
        self._weight, self._size, self._wanted = weight.detach(), tuple(size), wanted
        self._tiles = tiles

    def worth_it(self, relevance: Product) -> bool:
        """Whether this is quicker than a convolution of all channels."""
        maps, by = relevance.maps, relevance.by
        single = maps.dtype == self._weight.dtype == torch.float32 and maps.device.type == "cpu"
        even = not any(channels % RECORD for channels in self._weight.shape[:2])
        if by is None or registers() is None or not single or not even:
            return False
        if self._weight.numel() < LEAST_WEIGHTS or len(maps) < LEAST_TURNS:
            return False
        left = (1 + LISTS / len(maps)) * float((by != 0).float().mean())
        if self._wanted is not None:
            left *= float((self._wanted != 0).float().mean())
        return left < self._others(maps)

    def _others(self, maps: Tensor) -> float:
        """How much may be left of the products, for maps [T,B,O,h,w]."""
        count, some = len(maps) * maps.shape[1], maps[0]
        if self._tiles and (side := winograd.side_for(some, self._tiles, count)):
            return OTHERS * winograd.share(some, side, count)
        return POINTS if self._weight[0, 0].numel() == 1 else OTHERS

    def later(self, relevance: Product) -> Later:
        """[T,B,I,H,W], or its sums over space, of relevance [T,B,O,h,w]. Raises ValueError where
        the code is for other numbers of channels, or maps do not fit."""
        (outer, inner), (_, images, given, *_) = self._weight.shape[:2], relevance.maps.shape
        fits = relevance.by is not None and relevance.by.shape == relevance.maps.shape[1:]
        known = self._wanted is None or self._wanted.shape == (images, inner, *self._size)
        if outer % RECORD or inner % RECORD or given != outer or not fits or not known:
            raise ValueError(f"{tuple(relevance.maps.shape)} by {outer} x {inner} do not go apart")
        return Later(lambda: self._maps(relevance), lambda by: self._summed(relevance, by))

    def _maps(self, relevance: Product) -> Tensor:
        """[T,B,I,H,W], channels last."""
        form = relevance.maps.shape[1], *self._size
        open_ = self._weight.new_ones(math.prod(form), self._weight.shape[1])
        if self._wanted is not None:
            open_ = (_by_place(self._wanted) != 0).float()
        made = self._products(relevance, open_, 1)
        return made.reshape(len(made), *form, -1).movedim(-1, 2)

    def _summed(self, relevance: Product, by: Tensor) -> Tensor:
        """[T,B,I]: the maps times ``by`` [B,I,H,W], added up over space."""
        if by.shape != (relevance.maps.shape[1], self._weight.shape[1], *self._size):
            raise ValueError(f"factors {tuple(by.shape)} are not of the form of the maps below")
        return self._products(relevance, _by_place(by), math.prod(self._size))

    def _products(self, relevance: Product, factors: Tensor, together: int) -> Tensor:
        """[T,P,I]: what comes to places times their ``factors`` [P,I], so many of them ``together``
        added up."""
        assert relevance.by is not None, "there is nothing to leave out"
        maps = relevance.maps.movedim(2, -1).contiguous().flatten(1, 3)
        given = maps, _by_place(relevance.by).contiguous(), factors.contiguous()
        outer, inner, *taps = self._weight.shape
        one = math.prod(taps) == 1  # PyTorch turns two dimensions over more quickly than four
        turned = self._weight.flatten(1).t() if one else self._weight.permute(1, 2, 3, 0)
        weights = turned.contiguous().reshape(inner, *taps, outer)
        made = weights.new_empty(len(maps), len(factors) // together, inner)
        work = _Work(*given, weights, _Read(self._sources(relevance.maps.shape)), together, made)
        jobs = _jobs(len(maps), inner, _code(registers()).shape.lanes)

        def some(part: Pair) -> None:
            for turns, channels in jobs[slice(*part)]:
                work.do(slice(*turns), slice(*channels))

        divided(some, len(jobs), weights.numel() * len(factors))
        return made

    def _sources(self, form: Sequence[int]) -> list[Sources]:
        """From where each place of each image of the maps below is read, those above being of a
        form [T,B,O,h,w]."""
        here = _taps(self._geometry, cast(Pair, self._size), cast(Pair, tuple(form[3:])))
        places = math.prod(form[3:])
        return [
            [(places * image + source, tap) for source, tap in each]
            for image in range(form[1])
            for each in here
        ]


class _Read:
    """How places below read those above: the ``sources`` i32[S,4] of all as machine code has them,
    those of a place from the number ``begun`` i32[P+1] on, and in how many ``slots`` they are
    packed for as long as they are read."""

    def __init__(self, sources: Sequence[Sources]) -> None:
        asked = Counter(at for each in sources for at, _ in each)
        kept: dict[int, int] = {}
        spare: list[int] = []
        self.slots, told = 0, []
        for at, tap in chain.from_iterable(sources):
            if new := at not in kept:
                kept[at] = spare.pop() if spare else self.slots
                self.slots = max(self.slots, kept[at] + 1)
            told.append((at, tap, kept[at], new))
            asked[at] -= 1
            if not asked[at]:
                spare.append(kept.pop(at))
        begun = [0, *accumulate(map(len, sources))]
        self.sources, self.begun = (torch.tensor(each, dtype=torch.int32) for each in (told, begun))


@dataclass(frozen=True)
class _Work:
    """What comes of ``maps`` [T,P,O] times ``by`` [P,O] to places below that ``read`` them by
    ``weights`` [I,h,w,O], times ``factors`` [P,I], so many ``together`` added up, is ``made``
    [T,P / together,I]."""

    maps: Tensor
    by: Tensor
    factors: Tensor
    weights: Tensor
    read: _Read
    together: int
    made: Tensor

    def do(self, turns: slice, channels: slice) -> None:
        """As much of it as some turns and some channels below are."""
        code, read, maps = _code(registers()), self.read, self.maps[turns]
        weights, factors = self.weights[channels], self.factors[:, channels]
        made = self.made[turns, :, channels]
        (count, _, inner), outer, wide = made.shape, maps.shape[2], code.wide(len(maps))
        room, slots, numbers = code.room(outer, count), max(1, read.slots), read.sources.new_empty
        packed, taken = maps.new_empty(slots * room), numbers(slots * (outer + LINE))
        rows, found = numbers(inner + code.shape.rows), maps.new_empty(LINES + inner, wide)
        sink = maps.new_empty(inner)
        found[0] = 0
        given = maps, self.by, weights, factors, made, read.sources, read.begun
        at = addresses(*given, packed, taken, rows, found, sink)
        sizes = count, maps.stride(0), outer, weights[0].numel(), wide, room, inner
        more = factors.stride(0), self.together, len(factors), made.stride(0), made.stride(1)
        code.fill(*at, *sizes, *more)


def _jobs(turns: int, channels: int, lanes: int) -> list[tuple[Pair, Pair]]:
    """Turns, and channels below, that are worked out at once: as much for each core."""
    cores = torch.get_num_threads()
    parts = -(-turns // TURNS)
    parts = parts if parts < cores else -(-parts // cores) * cores
    spans = _parted(channels, -(-cores // parts), RECORD)
    return list(product(_parted(turns, parts, lanes), spans))


def _parted(count: int, parts: int, step: int) -> list[Pair]:
    """The numbers to ``count`` in about so many parts, each a multiple of ``step`` but the last."""
    each = -(-count // (parts * step)) * step
    return [(first, min(first + each, count)) for first in range(0, count, each)]


@cache
def _taps(geometry: tuple[Pair, ...], below: Pair, above: Pair) -> list[list[Pair]]:
    """For each place of a map that a transposed convolution makes of one ``above`` the places there
    that read it, and the taps of the kernel by which they do."""
    kernel, *more = geometry

    def read(place: Pair, offset: Pair) -> int | None:
        at = [
            (here + border - apart * each) / step
            for here, each, step, border, apart in zip(place, offset, *more, strict=True)
        ]
        inside = (0 <= each < side for each, side in zip(at, above, strict=True))
        there = all(inside) and all(each.is_integer() for each in at)
        return int(at[0]) * above[1] + int(at[1]) if there else None

    taps = list(enumerate(_places(kernel)))
    return [
        [(at, tap) for tap, offset in taps if (at := read(place, offset)) is not None]
        for place in _places(below)
    ]


def _places(size: Sequence[int]) -> list[Pair]:
    return list(product(range(size[0]), range(size[1])))


def _by_place(maps: Tensor) -> Tensor:
    """[B H W,C]"""
    return maps.flatten(2).movedim(1, 2).flatten(0, 1)


@once
def _code(shape: Registers | None) -> PlaceCode:
    assert shape is not None, "this processor has no such registers"
    return PlaceCode(shape)
