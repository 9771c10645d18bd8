"""How relevance comes down through one call of a network: as whole maps, or of one channel alone.

Relevance is [T,B,...]: T starts at once on each of B pictures. A start is one channel of a layer.
As long as no other channel has any, relevance is carried as ``Lone``, and the convolution below
costs next to nothing: from one channel, a 1 x 1 convolution is of rank one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from explorer.compute import winograd
from explorer.networks import modules as m


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
        return self.add_to(like.new_zeros((len(self.channel), *like.shape)))

    def add_to(self, maps: Tensor) -> Tensor:
        """Maps [T,B,C,...] to which this relevance, whatever its places, is added in place."""
        turns, rows = (torch.arange(size, device=maps.device) for size in self.channel.shape)
        return maps.index_put_((turns[:, None], rows, self.channel), self.value, accumulate=True)


@dataclass(frozen=True)
class Product:
    """Relevance that is ``maps`` [T,B,...] times ``by`` [B,...] (None: once), at every ``steps``-th
    place down and across, and nothing between. Whoever divides it or adds it up multiplies in the
    same pass. Its maps may be overwritten unless they are ``shared`` by other products."""

    maps: Tensor
    by: Tensor | None = None
    steps: tuple[int, int] = (1, 1)
    shared: bool = False

    def at(self, value: Tensor) -> Tensor:
        """The places of maps [...,H,W] where this relevance can be."""
        return value if self.steps == (1, 1) else value[..., :: self.steps[0], :: self.steps[1]]

    def over(self, below: Tensor | None) -> Product:
        """This relevance divided by maps [B,...]."""
        if below is None:
            return self
        here = self.at(below)
        scale = here.reciprocal() if self.by is None else self.by / here
        return replace(self, by=scale)

    def alone(self, like: Tensor) -> Tensor:
        """[T,B,...]: whole maps of a value ``like`` [B,...]."""
        if self.by is not None and self.steps == (1, 1):
            return self.maps * self.by if self.shared else self.maps.mul_(self.by)
        return self.add_to(like.new_zeros((len(self.maps), *like.shape)))

    def add_to(self, found: Tensor) -> Tensor:
        """Maps [T,B,...] to which this relevance is added in place."""
        here = self.at(found)
        if self.by is None:
            here.add_(self.maps)
        else:
            here.addcmul_(self.maps, self.by)
        return found


Share = Tensor | Lone | Product
"""Relevance of one value. (Where a call gives several, as a split does, a tuple of tensors.)"""


@dataclass(frozen=True)
class Pull:
    """What the relevance of an output gives to each input: ``whole`` does it, for maps that are
    divided by ``below`` [B,...] if there is one. ``lone`` does it for one channel alone where that
    is less work, dividing by itself. Where it ``passes``, the one input has all, as it is."""

    whole: Callable[..., tuple[Share | None, ...]]
    lone: Callable[[Lone], tuple[Share | None, ...]] | None = None
    below: Callable[[], Tensor] | None = None
    passes: bool = False

    def then(self, change: Callable[[tuple[Share | None, ...]], tuple[Share | None, ...]]) -> Pull:
        """The same with the shares that it gives changed."""
        alone = self.lone
        return Pull(
            lambda relevance: change(self.whole(relevance)),
            alone and (lambda relevance: change(alone(relevance))),
            self.below,
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
            relevance = total(shares, like, self.below and self.below())
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
            return vmap(back)(gradients)
        return _each(lambda g: g[None], back(_each(lambda g: g[0], gradients)))

    return output, pull


def convolved(
    module: nn.Module, weights: Mapping[str, Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """``transposed`` for a convolution with these weights and biases. Autograd would copy the
    pictures for every start; a transposed convolution needs no more than their size."""
    if not is_flat(module):
        return transposed(lambda values: functional_call(module, dict(weights), (values,)), x)
    output: Tensor = functional_call(module, dict(weights), (x,))
    return output, convolution_pull(module, weights["weight"], x, output)


def is_flat(module: nn.Module) -> bool:
    """Whether a module is a plain convolution over two dimensions with a border of zeros."""
    plain = type(module) is nn.Conv2d and module.padding_mode == "zeros"
    return plain and not isinstance(module.padding, str)


def convolution_pull(
    module: nn.Module, weight: Tensor, x: Tensor, output: Tensor
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """What pulls gradients [T,B,...] of the output of such a convolution back to its input x."""
    size, stride, padding, dilation = (
        cast("tuple[int, int]", each)
        for each in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    left = [
        side - ((made - 1) * stride[at] - 2 * padding[at] + dilation[at] * (size[at] - 1) + 1)
        for at, (side, made) in enumerate(zip(x.shape[2:], output.shape[2:], strict=True))
    ]
    groups = cast(int, module.groups)
    even = size == (3, 3) and stride == padding == dilation == (1, 1) and groups == 1
    quick = winograd.Transposed(weight) if even else None

    def pull(gradients: Tensor) -> tuple[Tensor, ...]:
        flat = gradients.flatten(0, 1)
        if quick and winograd.worth_it(flat, weight):
            given = quick(flat)
        else:
            given = F.conv_transpose2d(flat, weight, None, stride, padding, left, groups, dilation)
        return (given.reshape(*gradients.shape[:2], *given.shape[1:]),)

    return pull


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``value`` with each tensor of its tuples changed."""
    if isinstance(value, tuple):
        return tuple(_each(change, part) for part in value)
    return change(value)


def gradient(module: nn.Module | None, pull: Callable[..., Any]) -> Pull:
    """Relevance goes where gradients go, as ``pull`` has it."""
    if isinstance(module, m.Add):
        return Pull(pull, lambda alone: (alone, alone))
    if isinstance(module, nn.Conv2d) and is_point(module):
        weight = module.weight
        return Pull(pull, lambda alone: (point(weight[alone.channel].flatten(2), alone.value),))
    return Pull(pull)


def is_point(module: nn.Module, spaced: bool = False) -> bool:
    """Whether a module is a plain 1 x 1 convolution: of every place, or ``spaced`` by its steps."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (1, 1)
        and (module.stride != (1, 1)) == spaced
        and module.padding == (0, 0)
        and module.groups == 1
    )


def point(rows: Tensor, value: Tensor) -> Tensor:
    """[T,B,I,H,W]: weights [T,B,I] of channels of a 1 x 1 convolution times maps [T,B,H,W]."""
    return (value.unsqueeze(-1) * rows[:, :, None, None]).movedim(-1, 2)
