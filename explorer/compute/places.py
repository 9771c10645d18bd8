"""Transposed convolutions place by place, without what is zero.

Of the channels of a picture a rectifier closes half or more at any one place, others at each. There
no relevance is, whatever neuron it starts from, and where it goes to such channels, none is wanted.
So where many neurons cite one picture, each place below is a matrix product of the channels that
are open above it with the rows and columns of the weights between those and the ones open here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn

from explorer.compute.pulls import Later, Product
from explorer.networks.cores import side_by_side

CHOOSING, LEAST_WEIGHTS = 40, 1 << 17
"""What choosing rows and columns takes, in starts that are worked out with all of them; with fewer
weights it takes more than can be saved."""

MOST = 0.7
"""Share of a plain convolution's products that may be left, with what choosing takes."""

STEP = 32
"""Products are of a multiple of so many rows and columns: for each size the library makes code,
which takes as long as a product."""

MOST_CORES = 8
"""Places at once: Python hands out no more."""

Place = tuple[int, int]

Source = tuple[int, int, int]
"""A place above, of all images, the taps of the kernel, and by which of these it is read."""

Columns = tuple[Tensor, Tensor]
"""Columns of the weights i64[N], and for every channel i64[I] which of these it gets."""


class Transposed:
    """The transposed convolution of a module without groups by weights [O,I,h,w], down to maps of
    a size. Where ``wanted`` [B,I,H,W] is zero, what comes is of no meaning (None: nowhere)."""

    def __init__(
        self, module: nn.Module, weight: Tensor, size: Sequence[int], wanted: Tensor | None
    ) -> None:
        self._geometry = tuple(
            cast(Place, each)
            for each in (weight.shape[2:], module.stride, module.padding, module.dilation)
        )
        self._weight, self._size, self._wanted = weight.detach(), size, wanted

    def worth_it(self, relevance: Product) -> bool:
        """Whether this is quicker than a convolution of all channels."""
        maps, by = relevance.maps, relevance.by
        suits = maps.dtype == torch.float32 and maps.device.type == "cpu"
        if not suits or by is None or self._weight.numel() < LEAST_WEIGHTS:
            return False
        most = MOST - CHOOSING / len(maps)
        if most <= 0 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return False
        share = float((by != 0).float().mean())
        if self._wanted is not None:
            share *= float((self._wanted != 0).float().mean())
        return share < most

    def later(self, relevance: Product) -> Later:
        """[T,B,I,H,W], or its sums over space, of relevance [T,B,O,h,w]."""
        return Later(lambda: self._maps(relevance), lambda by: self._summed(relevance, by))

    def _maps(self, relevance: Product) -> Tensor:
        """[T,B,I,H,W], which lie place by place in memory."""
        above = _Above(relevance)
        below = above.new(len(above), math.prod(self._size), above.rows, self._weight.shape[1])
        sources, out = self._all_sources(above), _laid_out(below)

        def fill(at: int) -> None:
            if not sources[at]:
                out[at].zero_()
                return
            values, rows = above.of(sources[at])
            weights = self._rows.index_select(0, rows)
            if not self._columns:
                out[at].copy_(_product(values, weights.t()))
                return
            columns, which = self._columns[at]
            found = _product(values, weights.index_select(1, columns).t())
            torch.index_select(found, 1, which, out=out[at])

        for _ in side_by_side(fill, range(len(out)), _cores()):
            pass
        below = below.reshape(len(above), *self._size, above.rows, -1)
        return below.permute(3, 0, 4, 1, 2)[: above.turns]

    def _summed(self, relevance: Product, by: Tensor) -> Tensor:
        """[T,B,I]: the maps times ``by`` [B,I,H,W], added up over space."""
        above, factors = _Above(relevance), _by_place(by)
        sources, cores, places = self._all_sources(above), _cores(), math.prod(self._size)
        across, everything = self._rows.t().contiguous(), torch.arange(self._weight.shape[1])

        def add(first: int) -> Tensor:
            found = above.new(len(above), len(across), above.rows).zero_()
            for at in range(first, len(sources), cores):
                if sources[at]:
                    values, rows = above.of(sources[at])
                    columns = self._columns[at][0] if self._columns else everything
                    chosen = across.index_select(0, columns).index_select(1, rows)
                    weights = chosen.mul_(factors[at, columns, None])
                    found[at // places].index_add_(0, columns, _product(weights, values))
            return found

        parts = list(side_by_side(add, range(cores), cores))
        return torch.stack(parts).sum(0).permute(2, 0, 1)[: above.turns]

    def _all_sources(self, above: _Above) -> list[list[Source]]:
        """Of each place of each image of the maps below, from where it is read."""
        here = [self._sources(place, above.size) for place in _places(self._size)]
        taps, places = math.prod(self._geometry[0]), math.prod(above.size)
        return [
            [(places * image + source, taps, tap) for tap, source in each]
            for image in range(len(above))
            for each in here
        ]

    @cached_property
    def _rows(self) -> Tensor:
        """[O h w,I]: the weights."""
        return self._weight.permute(0, 2, 3, 1).reshape(-1, self._weight.shape[1])

    @cached_property
    def _columns(self) -> list[Columns]:
        """For each place the columns of the weights that are wanted, and for every channel which of
        these it gets: any, where it is not wanted."""
        if self._wanted is None:
            return []
        order, counts = _open(self._wanted)
        which = order.argsort(1)
        return [
            (columns[:count], at.clamp(max=count - 1))
            for columns, at, count in zip(order, which, counts, strict=True)
        ]

    def _sources(self, place: Place, above: Place) -> list[tuple[int, int]]:
        """The taps of the kernel, and the places above that read this place by them."""
        found = []
        kernel, *geometry = self._geometry
        for tap, offset in enumerate(_places(kernel)):
            at = [
                (here + border - apart * each) / step
                for here, each, step, border, apart in zip(place, offset, *geometry, strict=True)
            ]
            inside = (0 <= each < side for each, side in zip(at, above, strict=True))
            if all(inside) and all(each.is_integer() for each in at):
                found.append((tap, int(at[0]) * above[1] + int(at[1])))
        return found


class _Above:
    """Relevance [T,B,O,h,w] by the places of its images, without channels that are zero there."""

    def __init__(self, relevance: Product) -> None:
        maps = relevance.maps
        self.turns, self._count, _, *size = maps.shape
        self.size = cast(Place, tuple(size))
        self.rows = _rounded(self.turns)
        self.new = maps.new_empty
        self._maps = _laid_out(maps.flatten(3).movedim(2, 3).movedim(0, 2))  # B P lists [T,O]
        self._factors = _factors(cast(Tensor, relevance.by))

    def __len__(self) -> int:
        return self._count

    def of(self, sources: Sequence[Source]) -> tuple[Tensor, Tensor]:
        """The values [rows,K] that a place is read by, and the rows of the weights i64[K] that
        these are multiplied with."""
        values, chosen = [], []
        for place, taps, tap in sources:
            channels, by = self._factors[place]
            values.append(_padded(self._maps[place], channels, self.rows).mul_(by))
            chosen.append(channels if taps == 1 else channels * taps + tap)
        return _joined(values, 1), _joined(chosen, 0)


def _cores() -> int:
    return min(torch.get_num_threads(), MOST_CORES)


def _places(size: Sequence[int]) -> list[Place]:
    return list(product(range(size[0]), range(size[1])))


def _laid_out(maps: Tensor) -> list[Tensor]:
    """The maps [T,C] of each place of each image, of [B,P,T,C]."""
    return [each for image in maps.unbind() for each in image.unbind()]


def _open(gate: Tensor) -> tuple[Tensor, list[int]]:
    """For each place of each image of [B,C,H,W] all its channels, those first that are not zero,
    and the number of these, rounded up."""
    closed = _by_place(gate) == 0
    order = torch.argsort(closed.byte(), dim=1, stable=True)
    counts = (~closed).sum(1).tolist()
    return order, [min(_rounded(count), closed.shape[1]) for count in counts]


def _factors(gate: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each place of each image of [B,C,H,W] the channels that are not zero, and their values;
    some are zero, as the number is rounded up."""
    order, counts = _open(gate)
    values = _by_place(gate).gather(1, order)
    return [(c[:k], v[:k]) for c, v, k in zip(order, values, counts, strict=True)]


def _padded(values: Tensor, channels: Tensor, rows: int) -> Tensor:
    """[rows,K]: these channels of values [T,C], and zeros below them."""
    found = values.new_empty(rows, len(channels))
    torch.index_select(values, 1, channels, out=found[: len(values)])
    found[len(values) :] = 0
    return found


def _rounded(count: int) -> int:
    return max(1, -(-count // STEP)) * STEP


def _by_place(maps: Tensor) -> Tensor:
    """[B H W,C]"""
    return maps.flatten(2).movedim(1, 2).flatten(0, 1)


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _product(values: Tensor, weights: Tensor) -> Tensor:
    """[M,N]: values [M,K] times weights [N,K]."""
    linear: Any = torch.ops.mkldnn._linear_pointwise  # quicker than PyTorch's own choice
    found: Tensor = linear(values, weights, None, "none", [], "")
    return found
