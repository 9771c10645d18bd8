"""How relevance comes down through one call of a network: as whole maps, or of one channel alone.

Relevance is [T,B,...]: T starts at once on each of B pictures. A start is one channel of a layer.
As long as no other channel has any, relevance is carried as ``Lone``, and the convolution below
costs next to nothing: from one channel, a 1 x 1 convolution is of rank one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, cast
from warnings import catch_warnings, filterwarnings

import torch
from torch import Tensor
from torch.func import vjp, vmap


def nothing(turns: int, like: Tensor) -> Tensor:
    """Zeros [T,B,...] that lie in memory as a value ``like`` [B,...] does: what reads both of them
    takes two to three times as long where they do not."""
    return torch.zeros_like(like.expand(turns, *like.shape))


@dataclass(frozen=True)
class Lone:
    """Relevance ``value`` [T,B,H,W] of the channels ``channel`` i64[T,B], and none of any other."""

    channel: Tensor
    value: Tensor

    def of(self, maps: Tensor) -> Tensor:
        """[T,B,H,W]: these channels of maps [B,C,H,W]."""
        return maps[torch.arange(len(maps), device=maps.device), self.channel]

    def over(self, below: Tensor | None) -> Lone:
        """This relevance divided by maps [B,C,...]."""
        return self if below is None else Lone(self.channel, self.value / self.of(below))

    def alone(self, like: Tensor) -> Tensor:
        """[T,B,C,...]: whole maps of a value ``like`` [B,C,...]."""
        return self.add_to(nothing(len(self.channel), like))

    def add_to(self, maps: Tensor) -> Tensor:
        """Maps [T,B,C,...] to which this relevance, whatever its places, is added in place."""
        turns, rows = (torch.arange(size, device=maps.device) for size in self.channel.shape)
        return maps.index_put_((turns[:, None], rows, self.channel), self.value, accumulate=True)


class Later:
    """Maps [T,B,C,H,W] that are made when they are asked for. With less work than it takes to make
    them, ``summed`` (if it can) gives what they come to times maps [B,C,H,W], added up over space
    [T,B,C]; and ``scaled`` (if it can) what they are times maps, divided by others."""

    def __init__(
        self,
        make: Callable[[], Tensor],
        summed: Callable[[Tensor], Tensor] | None = None,
        scaled: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self._make = make
        self.summed = summed
        self.scaled = scaled

    @cached_property
    def maps(self) -> Tensor:
        """The maps, made now."""
        return self._make()


@dataclass(frozen=True)
class Product:
    """Relevance that is ``maps`` [T,B,...] times ``by`` [B,...] (None: once), at every ``steps``-th
    place down and across, and nothing between; divided by ``below`` [B,...] where maps that are
    made later can be. Whoever divides it or adds it up multiplies in the same pass. Its maps may be
    overwritten unless they are ``shared`` with other readers."""

    source: Tensor | Later
    by: Tensor | None = None
    below: Tensor | None = None
    steps: tuple[int, int] = (1, 1)
    shared: bool = False

    @property
    def maps(self) -> Tensor:
        """[T,B,...]"""
        return self.source.maps if isinstance(self.source, Later) else self.source

    def at(self, value: Tensor) -> Tensor:
        """The places of maps [...,H,W] where this relevance can be."""
        return value if self.steps == (1, 1) else value[..., :: self.steps[0], :: self.steps[1]]

    def over(self, below: Tensor | None) -> Product:
        """This relevance divided by maps [B,...]."""
        if below is None:
            return self
        here = self.at(below)
        if self.by is not None and isinstance(self.source, Later) and self.source.scaled:
            return replace(self, below=here)
        scale = here.reciprocal() if self.by is None else self.by / here
        return replace(self, by=scale)

    def alone(self, like: Tensor) -> Tensor:
        """[T,B,...]: whole maps of a value ``like`` [B,...]."""
        if self.steps == (1, 1):
            if self.below is not None:
                return self._scaled()
            maps = self.maps.clone() if self.shared else self.maps
            return maps if self.by is None else maps.mul_(self.by)
        return self.add_to(nothing(len(self.maps), like))

    def add_to(self, found: Tensor) -> Tensor:
        """Maps [T,B,...] to which this relevance is added in place."""
        here = self.at(found)
        if self.below is not None:
            here.add_(self._scaled())
        elif self.by is None:
            here.add_(self.maps)
        else:
            here.addcmul_(self.maps, self.by)
        return found

    def _scaled(self) -> Tensor:
        scaled: Any = cast(Later, self.source).scaled
        return cast(Tensor, scaled(self.by, self.below))


Share = Tensor | Lone | Product
"""Relevance of one value. (Where a call gives several, as a split does, a tuple of tensors.)"""

Change = Callable[[tuple[Share | None, ...]], tuple[Share | None, ...]]


@dataclass(frozen=True)
class Pull:
    """What the relevance of an output gives to each input: ``whole`` does it, for maps that are
    divided by ``below`` [B,...] if there is one. ``lone`` does it for one channel alone where that
    is less work, dividing by itself. Where it ``passes``, the one input has all, as it is; where
    it ``multiplies``, ``whole`` takes a product as one."""

    whole: Callable[..., tuple[Share | None, ...]]
    lone: Callable[[Lone], tuple[Share | None, ...]] | None = None
    below: Callable[[], Tensor] | None = None
    passes: bool = False
    multiplies: bool = False

    def then(self, change: Change) -> Pull:
        """The same with the shares that it gives changed."""
        lone = self.lone
        return replace(
            self,
            whole=lambda relevance: change(self.whole(relevance)),
            lone=lone and (lambda relevance: change(lone(relevance))),
            passes=False,
        )

    def down(self, shares: list[Share], like: Any) -> Sequence[list[Share]]:
        """For each input the shares of it, to be added up, in shares of the output, a value
        ``like`` [B,...]. The shares are used up."""
        if self.passes:
            return (shares,)
        (only, *more) = shares
        if self.lone is not None and isinstance(only, Lone) and not more:
            given = self.lone(only)
        else:
            below = self.below and self.below()
            if self.multiplies and isinstance(only, Product) and not more:
                relevance = only.over(below)
            else:
                relevance = total(shares, like, below)
            del only, more
            shares.clear()
            given = self.whole(relevance)
        return [[] if share is None else [share] for share in given]


Make = Callable[[Any, tuple[Any, ...], Any], Pull]
"""(module, its inputs [B,...], its output) -> what pulls relevance of the output down to them."""


def total(shares: Sequence[Share], like: Any, below: Tensor | None = None) -> Any:
    """The sum of shares as whole maps [T,B,...], of a value ``like`` [B,...]; where there is a
    ``below`` [B,...], divided by it, and shares that are maps are overwritten."""
    whole = [share for share in shares if not isinstance(share, Lone | Product)]
    rest = [share.over(below) for share in shares if isinstance(share, Lone | Product)]
    found: Any = reduce(_plus, whole) if whole else None
    if found is not None and below is not None:
        found = found.div_(below)
    elif rest and len(whole) == 1:
        found = found.clone()
    for share in sorted(rest, key=_rank):
        found = share.alone(like) if found is None else share.add_to(found)
    return found


def _rank(share: Lone | Product) -> int:
    """In which order shares are added up: whole maps first, those that can be overwritten ahead."""
    if isinstance(share, Lone) or share.steps != (1, 1):
        return 2
    return int(share.shared)


def _plus(first: Any, second: Any) -> Any:
    if isinstance(first, tuple):
        return tuple(_plus(one, other) for one, other in zip(first, second, strict=True))
    return first + second


def transposed(function: Callable[..., Any], *inputs: Any) -> tuple[Any, Callable[..., Any]]:
    """The output of a function, and what pulls gradients [T,B,...] of it back to its inputs."""
    output, back, *_ = vjp(function, *inputs)

    def pull(gradients: Any) -> Any:
        turns = gradients[0] if isinstance(gradients, tuple) else gradients
        if len(turns) > 1:
            with catch_warnings():  # attention comes down start by start, which is no slower
                filterwarnings("ignore", "There is a performance drop")
                return vmap(back)(gradients)
        return _each(lambda g: g[None], back(_each(lambda g: g[0], gradients)))

    return output, pull


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``value`` with each tensor of its tuples changed."""
    if isinstance(value, tuple):
        return tuple(_each(change, part) for part in value)
    return change(value)


def gradient(pull: Callable[..., Any], adds: bool) -> Pull:
    """Relevance goes where gradients go, as ``pull`` has it. A sum that ``adds`` maps of its own
    form gives each of them all that one channel alone has."""
    return Pull(pull, (lambda alone: (alone, alone)) if adds else None)
