"""Relevance through convolutions: the rules z-plus and flat of ``explorer.compute.rules``.

A rule makes its denominators when relevance is first divided by them, and not at all where they are
known of the pictures, or one channel alone has relevance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from explorer.compute.convolutions import convolution_pull, convolved, is_flat, is_point, point
from explorer.compute.pulls import Lone, Product, Pull, Share

STABILISER = 1e-6


def stabilise(z: Tensor) -> Tensor:
    """Move every value away from zero by 1e-6, zero itself upwards, whatever its sign."""
    return torch.copysign(z.new_full((), STABILISER), z + 0.0).add_(z)


def z_plus(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """Only what raises the output counts: z = W+ x+ + b+ + W- x-, never negative."""
    (x,) = inputs
    if not bool(x.amin() < 0):
        return z_plus_above_zero(module, inputs, output)
    weights = dict(module.named_parameters(recurse=False))
    plus = {name: weight.clamp(min=0) for name, weight in weights.items()}
    minus = {"weight": weights["weight"].clamp(max=0)}
    return _both(module, (x.clamp(min=0), x.clamp(max=0)), (plus, minus), output)


def z_plus_above_zero(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """``z_plus`` of an input that is never negative, as after a rectifier."""
    (x,) = inputs
    plus = {name: w.clamp(min=0) for name, w in module.named_parameters(recurse=False)}
    below, pull = _positive(module, plus, x, output, later=True)

    def whole(shares: Tensor | Product) -> tuple[Share, ...]:
        return (Product(pull(shares)[0], x),)

    def alone(relevance: Lone) -> tuple[Share, ...]:
        rows, maps = plus["weight"][relevance.channel].flatten(2), x.movedim(1, -1)
        z = torch.einsum("bhwi,tbi->tbhw", maps, rows)
        z = z + plus["bias"][relevance.channel][..., None, None] if "bias" in plus else z
        return (Product(point(rows, relevance.value / stabilise(z)), x),)

    lone = alone if is_point(module) else None
    return Pull(whole, lone, below, multiplies=is_flat(module))


def _positive(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    x: Tensor,
    output: Tensor,
    later: bool = False,
) -> tuple[Callable[[], Tensor], Callable[[Any], tuple[Any, ...]]]:
    """``convolved`` of what is never negative, stabilised: in the bias, which costs nothing. What
    comes down is multiplied by x."""
    if "bias" in weights:
        shifted = {**weights, "bias": weights["bias"] + STABILISER}
        below, pull = convolved(module, shifted, x, output, x, later)
        return cache(below), pull
    z, pull = convolved(module, weights, x, output, x, later)
    return cache(lambda: z() + STABILISER), pull


def _both(
    module: nn.Module,
    halves: tuple[Tensor, Tensor],
    weights: tuple[dict[str, Tensor], ...],
    output: Tensor,
) -> Pull:
    """z-plus of the positive and the negative half of an input, each with its weights: as channels
    side by side where there are no groups, so that maps of the output are made once."""
    plus, minus = weights
    if getattr(module, "groups", 1) == 1:
        wide = torch.cat([plus["weight"], minus["weight"]], 1)
        below, pull = _positive(module, {**plus, "weight": wide}, torch.cat(halves, 1), output)

        def pulled(shares: Tensor) -> Sequence[Tensor]:
            return cast("Sequence[Tensor]", pull(shares)[0].chunk(2, 2))

    else:
        more, first = _positive(module, plus, halves[0], output)
        none = {name: torch.zeros_like(each) for name, each in plus.items()}
        less, second = convolved(module, {**none, **minus}, halves[1], output)
        below = cache(lambda: more() + less())

        def pulled(shares: Tensor) -> Sequence[Tensor]:
            return first(shares)[0], second(shares)[0]

    def whole(shares: Tensor) -> tuple[Share, ...]:
        one, two = pulled(shares)
        return (torch.addcmul(one * halves[0], two, halves[1]),)

    return Pull(whole, below=below)


def z_plus_below_zero(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """``z_plus`` of a convolution whose output y is cut at zero. Of a signed input,
    z = (y + |W| |x| + |b|) / 2 takes one convolution instead of two, and loses no digits where y is
    above zero; elsewhere no relevance comes, unless something is added to what was cut. What comes
    down by W and by |W| comes as channels side by side."""
    (x,) = inputs
    if not bool(x.amin() < 0):
        return z_plus_above_zero(module, inputs, output)
    if not is_flat(module):
        return z_plus(module, inputs, output)
    size, weights = x.abs(), dict(module.named_parameters(recurse=False))
    weight, groups, least = weights["weight"], cast(int, module.groups), 2 * STABILISER
    bias = weights.get("bias", weight.new_zeros(len(weight))).abs() + least
    made, _ = convolved(module, {"weight": weight.abs(), "bias": bias}, size, output)
    below = cache(lambda: made(output, least).mul_(0.5))
    pull = convolution_pull(module, torch.cat([weight, weight.abs()], 1) / 2, x, output)

    def whole(shares: Tensor) -> tuple[Share, ...]:
        halves = pull(shares)[0].unflatten(2, (groups, 2, -1)).unbind(3)
        signed, unsigned = (each.flatten(2, 3) for each in halves)
        return ((signed * x).addcmul_(unsigned, size),)

    return Pull(whole, below=below)


def flat(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """All inputs of a window share alike: x = 1, W = 1, b = 0. So what the outputs of a group have
    is added up first, and one input of it stands for all."""
    x, weight, groups = inputs[0], module.get_parameter("weight"), cast(int, module.groups)
    inside = x.shape[1] // groups
    weights = {"weight": weight.new_ones((groups, 1, *weight.shape[2:]))}
    if module.bias is not None:
        weights["bias"] = weight.new_zeros(groups)
    ones = x.new_ones((len(x), groups, *x.shape[2:]))
    z, pull = convolved(module, weights, ones, output[:, :groups])
    below = stabilise(inside * z())

    def share(relevance: Tensor) -> tuple[Share, ...]:
        each = relevance.reshape(*relevance.shape[:2], groups, -1, *relevance.shape[3:])
        return (pull(each.sum(3) / below)[0].repeat_interleave(inside, 2),)

    return Pull(share)
