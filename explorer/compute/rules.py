"""Layer-wise relevance propagation: one small rule per kind of module.

The rules are those of the EpsilonPlusFlat composite (Montavon et al. 2019; Lapuschkin et al. 2019)
that PURE (Dreyer et al. 2024) uses. A rule takes the relevance R of a module's output to the
relevance of its inputs; denominators z are stabilised to z + sgn(z) 1e-6 with sgn(0) = +1:

    epsilon     linear layers, sums, averages  R_i = x_i sum_j (dz_j/dx_i) R_j / z_j, z the output
    z-plus      convolutions                   the same for z = W+ x+ + b+ + W- x-
    flat        the convolution on the pixels  every input of a window receives the same share
    pass        activations, batch norm        R_in = R_out
    layer norm  layer norm                     epsilon with the standard deviation held constant
    gate        products                       all to the signal, none to the gate
    gradient    rearrangement, max pooling     relevance goes where the values came from

For one picture every rule is linear in R, whatever neuron R starts from. So a rule is applied in
two steps: to a module and its inputs, which makes the denominators, and to any number of R.

Only modules and functions of the canonical form (``explorer.networks.canonise``) are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from explorer.compute.convolutions import convolution_pull, convolved, is_flat, is_point, point
from explorer.compute.pulls import Lone, Product, Pull, Share, transposed
from explorer.networks import modules as m
from explorer.networks.slices import Slice
from explorer.records import MissingRule

Rule = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Pull]
"""(module, its inputs [B,...], its output) -> what pulls relevance of the output down to them."""

STABILISER = 1e-6


def stabilise(z: Tensor) -> Tensor:
    """Move every value away from zero by 1e-6, zero itself upwards."""
    return z + torch.where(z < 0, -STABILISER, STABILISER)


def epsilon(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """Inputs share by what they add to the output, z = W x + b: linear layers, sums, averages."""

    def alone(relevance: Lone) -> tuple[Share, ...]:
        share = relevance.value / stabilise(relevance.of(output))
        return tuple(Lone(relevance.channel, relevance.of(x) * share) for x in inputs)

    if isinstance(module, m.Add) and all(x.shape == output.shape for x in inputs):
        below = cache(lambda: stabilise(output))  # not needed where one channel is alone
        lone = alone if output.dim() == 4 else None
        return Pull(
            lambda shares: tuple(Product(shares, x, shared=True) for x in inputs), lone, below
        )
    return _spread(inputs, *transposed(module, *inputs))


def z_plus(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """Only what raises the output counts: z = W+ x+ + b+ + W- x-, never negative."""
    (x,) = inputs
    if not bool(x.amin() < 0):
        return _rectified(module, x, output)
    weights = dict(module.named_parameters(recurse=False))
    plus = {name: weight.clamp(min=0) for name, weight in weights.items()}
    minus = {"weight": weights["weight"].clamp(max=0)}
    return _both(module, (x.clamp(min=0), x.clamp(max=0)), (plus, minus), output)


def _rectified(module: nn.Module, x: Tensor, output: Tensor) -> Pull:
    """z-plus after a rectifier, where the negative half is nothing."""
    plus = {name: w.clamp(min=0) for name, w in module.named_parameters(recurse=False)}
    below, pull = _positive(module, plus, x, output)

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
    module: nn.Module, weights: Mapping[str, Tensor], x: Tensor, output: Tensor
) -> tuple[Callable[[], Tensor], Callable[[Any], tuple[Tensor, ...]]]:
    """``convolved`` of what is never negative, stabilised: in the bias, which costs nothing. What
    comes down is multiplied by x."""
    if "bias" in weights:
        shifted = {**weights, "bias": weights["bias"] + STABILISER}
        below, pull = convolved(module, shifted, x, output, x)
        return cache(below), pull
    z, pull = convolved(module, weights, x, output, x)
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
            return pull(shares)[0].chunk(2, 2)

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
    2 z = y + |W| |x| + |b| takes one convolution instead of two, and loses no digits where y is
    above zero; elsewhere no relevance comes, unless something is added to what was cut."""
    (x,) = inputs
    if not bool(x.amin() < 0):
        return _rectified(module, x, output)
    if not is_flat(module):
        return z_plus(module, inputs, output)
    weights = dict(module.named_parameters(recurse=False))
    size = x.abs()
    sizes = {name: each.abs() for name, each in weights.items()}
    more, unsigned = convolved(module, sizes, size, output)
    signed = convolution_pull(module, weights["weight"], x, output)
    below = cache(lambda: more().add_(output).clamp_(min=0).add_(2 * STABILISER))

    def whole(shares: Tensor) -> tuple[Share, ...]:
        return (signed(shares)[0].mul_(x).addcmul_(unsigned(shares)[0], size),)

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


def pass_on(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """The one input has the relevance of the output."""
    return Pull(lambda relevance: (relevance,), lambda alone: (alone,), passes=True)


def layer_norm(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """epsilon for (x - mean(x)) weight / std + bias with std as a constant (Ali et al. 2022)."""
    axes = tuple(range(-len(module.normalized_shape), 0))
    scale = torch.rsqrt(inputs[0].var(axes, unbiased=False, keepdim=True) + module.eps)

    def normalised(x: Tensor) -> Tensor:
        made = (x - x.mean(axes, keepdim=True)) * scale
        made = made if module.weight is None else made * module.weight
        return made if module.bias is None else made + module.bias

    return _spread(inputs, *transposed(normalised, *inputs))


def gate(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """The larger factor is the signal and gets all; a gate, which is spread over the signal's
    pixels (squeeze and excitation), gets nothing. Factors of one size get half each. What is spread
    itself gets what all its places have."""
    first, second = (x.numel() for x in inputs)
    shares = (0.5, 0.5) if first == second else (float(first > second), float(second > first))

    def part(relevance: Tensor, x: Tensor, share: float) -> Tensor | None:
        if not share:
            return None
        own = relevance.sum_to_size(len(relevance), *x.shape)
        return own if share == 1 else own * share

    def whole(relevance: Tensor) -> tuple[Share | None, ...]:
        return tuple(part(relevance, *each) for each in zip(inputs, shares, strict=True))

    return Pull(whole)


def _spread(
    inputs: tuple[Tensor, ...], z: Tensor, pull: Callable[[Tensor], tuple[Tensor, ...]]
) -> Pull:
    """R to x_i (dz/dx_i) R / z for every input x of a linear function, transposed by ``pull``."""
    below = stabilise(z)

    def whole(shares: Tensor) -> tuple[Share, ...]:
        pairs = zip(pull(shares), inputs, strict=True)
        return tuple(Product(g, x, shared=True) for g, x in pairs)  # g may be one value for many

    return Pull(whole, below=lambda: below)


RULES: tuple[tuple[tuple[type[nn.Module], ...], Rule | None], ...] = (
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), z_plus),
    ((nn.Linear, m.Add, m.Mean, nn.AvgPool2d, nn.AdaptiveAvgPool2d), epsilon),
    ((*m.ACTIVATIONS, nn.Sigmoid, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus), pass_on),
    ((nn.BatchNorm1d, nn.BatchNorm2d, m.Scale, m.Shift), pass_on),
    ((nn.LayerNorm,), layer_norm),
    ((m.Multiply,), gate),
    ((nn.MaxPool2d, nn.AdaptiveMaxPool2d, m.Concatenate, m.SamePad, nn.ZeroPad2d), None),
    ((nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle), None),
)
"""Kinds of modules and their rule; None: the gradient is the rule. The first match holds."""


def rules(part: Slice) -> Mapping[fx.Node, Rule | None]:
    """The rule of every node of a slice that depends on its lower map.

    From pixels, the first convolution has the flat rule. Raises MissingRule naming the first
    module or function that has none.
    """
    if not isinstance(part.module, fx.GraphModule):
        raise MissingRule(
            "This network cannot be traced, which LRP needs: choose the attribution 'gradient' "
            "instead of 'lrp'."
        )
    nodes = iter(part.module.graph.nodes)
    carrying = {next(nodes)}
    from_pixels = part.lower is None
    found: dict[fx.Node, Rule | None] = {}
    for node in nodes:
        if node.op == "output" or carrying.isdisjoint(node.all_input_nodes):
            continue
        carrying.add(node)
        rule = _rule(part, part.module, node)
        if rule is z_plus and from_pixels:
            rule, from_pixels = flat, False
        elif rule is z_plus and _cut(part.module, node):
            rule = z_plus_below_zero
        found[node] = rule
    return found


def _cut(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether all that reads a node cuts it at zero."""
    return all(
        user.op == "call_module"
        and isinstance(network.get_submodule(str(user.target)), tuple(m.RECTIFIERS))
        for user in node.users
    )


def _rule(part: Slice, network: fx.GraphModule, node: fx.Node) -> Rule | None:
    target = str(node.target)
    if node.op != "call_module":
        if node.target in m.SHAPERS:
            return None
        raise _missing(node.meta.get("path", node.name), getattr(node.target, "__name__", target))
    module = network.get_submodule(target)
    for kinds, rule in RULES:
        if isinstance(module, kinds):
            return rule
    raise _missing(part.paths.get(target, target), type(module).__name__)


def _missing(path: str, kind: str) -> MissingRule:
    return MissingRule(
        f"There is no relevance rule for {path} ({kind}): "
        "choose the attribution 'gradient' instead of 'lrp'."
    )
