"""How relevance comes down through one call of a network: as whole maps, or of one channel alone.

Relevance is [T,B,...]: T starts at once on each of B pictures. A start is one channel of a layer.
As long as no other channel has any, relevance is carried as ``Lone``, and the convolution below
costs next to nothing: from one channel, a 1 x 1 convolution is of rank one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

    def added(self, maps: Tensor) -> Tensor:
        """[T,B,C,...]: this relevance, whatever its places, and that of maps [T,B,C,...]."""
        turns, rows = (torch.arange(size, device=maps.device) for size in self.channel.shape)
        return maps.index_put((turns[:, None], rows, self.channel), self.value, accumulate=True)


Share = Tensor | Lone
"""Relevance of one value. (Where a call gives several, as a split does, a tuple of tensors.)"""


@dataclass(frozen=True)
class Pull:
    """What the relevance of an output gives to each input. ``lone`` does it for one channel alone
    where that is less work; None: ``whole`` has to. Relevance under a rule has one reader, which
    may overwrite it."""

    whole: Callable[..., tuple[Share | None, ...]]
    lone: Callable[[Lone], tuple[Share | None, ...]] | None = None


def total(shares: list[Share], like: Any) -> Any:
    """The sum of shares as whole maps [T,B,...], of a value ``like`` [B,...]."""
    whole = [share for share in shares if not isinstance(share, Lone)]
    alone = [share for share in shares if isinstance(share, Lone)]
    if not whole:
        whole = [like.new_zeros((len(alone[0].channel), *like.shape))]
    found: Any = whole[0]
    for share in whole[1:]:
        found = _plus(found, share)
    for each in alone:
        found = each.added(found)
    return found


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
    apart = size == (1, 1) != stride and padding == (0, 0) and groups == 1

    def pull(gradients: Tensor) -> tuple[Tensor, ...]:
        flat = gradients.flatten(0, 1)
        if quick and winograd.worth_it(flat, weight):
            given = quick(flat)
        elif apart:  # what falls on no place is not worked out
            given = flat.new_zeros(len(flat), *x.shape[2:], x.shape[1]).movedim(-1, 1)
            given[..., :: stride[0], :: stride[1]] = F.conv_transpose2d(flat, weight)
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


def is_point(module: nn.Module) -> bool:
    """Whether a module is a plain 1 x 1 convolution."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == module.stride == (1, 1)
        and module.padding == (0, 0)
        and module.groups == 1
    )


def point(rows: Tensor, value: Tensor) -> Tensor:
    """[T,B,I,H,W]: weights [T,B,I] of channels of a 1 x 1 convolution times maps [T,B,H,W]."""
    return (value.unsqueeze(-1) * rows[:, :, None, None]).movedim(-1, 2)
