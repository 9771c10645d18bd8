"""How relevance comes down through a convolution, by the quickest of several ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from explorer.compute import places
from explorer.compute.pulls import Later, Lone, Product, Pull, Share, transposed
from explorer.networks import depthwise, pointwise, windowed, winograd
from explorer.networks.depthwise import Depthwise
from explorer.networks.laid_out import Convolution, form_of
from explorer.networks.machine_code import registers
from explorer.networks.modules import Surrounded
from explorer.networks.pointwise import Pointwise
from explorer.networks.windowed import Windowed

LEAST = {False: (2000, 1 << 17), True: (150, 1 << 9)}
"""For so many places of maps, and with so many weights, it is worth laying out the weights of a
convolution anew: fewer where what is multiplied is copied together, which gains more."""


def convolved(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    x: Tensor,
    output: Tensor,
    wanted: Tensor | None = None,
    later: bool = False,
) -> tuple[Callable[..., Tensor], Callable[[Any], tuple[Any, ...]]]:
    """``transposed`` for a convolution with these weights and biases, whose output, of the form of
    ``output``, is made when it is asked for; that of a plain one with another map added, and no
    less than a number, if asked. Autograd would copy the pictures for every start; a transposed
    convolution needs no more than their size. What comes down is as ``convolution_pull`` has it."""
    if is_flat(module):
        weight, bias = weights["weight"], weights.get("bias")
        pull = convolution_pull(module, weight, x, output, wanted, later)
        own: Convolution | None = None
        worth = _worth_laying_out(weight, output)
        if worth and pointwise.suits(module, weight, x):
            own = Pointwise(weight, cast("tuple[int, int]", module.stride)[0])
        elif worth and windowed.suits(module, weight, x):
            own = Windowed(weight, form_of(module))
        elif depthwise.suits(module, weight, x):
            own = Depthwise(weight, form_of(module))

        def made(added: Tensor | None = None, least: float = -math.inf) -> Tensor:
            if own:
                return own(x, bias, added, least)
            how: Any = (module.stride, module.padding, module.dilation, module.groups)
            plain = F.conv2d(x, weight, bias, *how)
            plain = plain if added is None else plain.add_(added)
            return plain if least == -math.inf else plain.clamp_(min=least)

        return made, pull

    def call(values: Tensor) -> Any:
        return functional_call(module, dict(weights), (values,))

    output, back = transposed(call, x)
    return lambda: output, back


def is_flat(module: nn.Module) -> bool:
    """Whether a module is a plain convolution over two dimensions with a border of zeros."""
    plain = type(module) in (nn.Conv2d, Surrounded) and module.padding_mode == "zeros"
    return plain and not isinstance(module.padding, str)


def convolution_pull(
    module: nn.Module,
    weight: Tensor,
    x: Tensor,
    output: Tensor,
    wanted: Tensor | None = None,
    later: bool = False,
) -> Callable[[Tensor | Product], tuple[Any]]:
    """What pulls gradients [T,B,...] of the output of such a convolution back to its input x: maps,
    or where they come as a product or ``later`` is asked for, maps that may be made later. What
    comes down to where ``wanted`` [B,...] is zero may be left out."""
    size, stride, padding, dilation = (
        cast("tuple[int, int]", each)
        for each in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    left = [
        side - ((made - 1) * stride[at] - 2 * padding[at] + dilation[at] * (size[at] - 1) + 1)
        for at, (side, made) in enumerate(zip(x.shape[2:], output.shape[2:], strict=True))
    ]
    groups = cast(int, module.groups)
    tiles = _largest_tile(module, weight, x)
    way, apart = _own_ways(module, weight, x, tiles), None
    if groups == 1:
        apart = places.Transposed(module, weight, x.shape[2:], wanted, tiles)

    def pull(gradients: Tensor | Product) -> tuple[Any]:
        if isinstance(gradients, Product):
            if apart and gradients.below is None and apart.worth_it(gradients):
                return (apart.later(gradients),)
            gradients = gradients.alone(output)
        flat = gradients.flatten(0, 1)
        if not (quick := way(flat)):
            given = F.conv_transpose2d(flat, weight, None, stride, padding, left, groups, dilation)
        elif later and len(gradients) == 1:
            return (
                Later(lambda: quick(flat)[None], scaled=lambda *by: quick.scaled(flat, *by)[None]),
            )
        else:
            given = quick(flat)
        return (given.reshape(*gradients.shape[:2], *given.shape[1:]),)

    return pull


def _largest_tile(module: nn.Module, weight: Tensor, x: Tensor) -> int:
    """The side of the largest tiles in which gradients may come down to x; 0 if in none."""
    if not winograd.suits(module, weight, x):
        return 0
    return winograd.LEAST if bool(weight.amin() < 0) else winograd.MOST


def _own_ways(
    module: nn.Module, weight: Tensor, x: Tensor, tiles: int
) -> Callable[[Tensor], Convolution | None]:
    """What takes gradients down to x by code of our own, if that is quicker; in ``tiles`` of at
    most such a side."""
    laid_out = cache(partial(_turned, weight))
    turned, even = weight.transpose(0, 1), module.stride == (1, 1)
    points, alone = cache(partial(Pointwise, turned)), None
    wide = cache(lambda: windowed.Transposed(weight, form_of(module), x.shape[2:]))
    if depthwise.suits(module, weight, x):
        alone = depthwise.Transposed(weight, form_of(module), x.shape[2:])

    def way(flat: Tensor) -> Convolution | None:
        if tiles and (side := winograd.side_for(flat, tiles, len(flat))):
            return laid_out(side)
        if not _worth_laying_out(turned, flat):
            return alone
        if even and pointwise.suits(module, turned, flat):
            return points()
        apart = windowed.suits_transposed(module, weight, flat, x.shape[2:])
        return wide() if apart else alone

    return way


def _worth_laying_out(weight: Tensor, maps: Tensor) -> bool:
    """Whether it is, of weights that take as many places as maps have."""
    shape = registers()
    places, weights = LEAST[shape is not None and shape.copies]
    return weight.numel() >= weights and maps[:, 0].numel() >= places


def _turned(weight: Tensor, side: int) -> winograd.Tiled:
    """The transposed convolution by weights [O,I,3,3]."""
    return winograd.Tiled(weight.transpose(0, 1).flip(2, 3), side)


def gradient_of_convolution(module: nn.Conv2d, x: Tensor, output: Tensor, cut: bool) -> Pull:
    """Relevance goes where gradients go. Where the input is ``cut`` at zero, what comes down to
    zeros goes no further."""
    pull = convolution_pull(module, module.weight, x, output, x if cut else None)

    def whole(relevance: Tensor | Product) -> tuple[Share, ...]:
        (given,) = pull(relevance)
        return (Product(given) if isinstance(given, Later) else given,)

    def alone(relevance: Lone) -> tuple[Share, ...]:
        return (point(module.weight[relevance.channel].flatten(2), relevance.value),)

    return Pull(whole, alone if is_point(module) else None, multiplies=True)


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
