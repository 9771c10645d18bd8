"""Layer-wise relevance propagation: one small rule per kind of module.

The rules are those of the EpsilonPlusFlat composite (Montavon et al. 2019; Lapuschkin et al. 2019)
that PURE (Dreyer et al. 2024) uses. A rule takes the relevance R of a module's output to the
relevance of its inputs; denominators z are stabilised to z + sgn(z) 1e-6 with sgn(0) = +1:

    epsilon     linear layers, sums, averages  R_i = x_i sum_j (dz_j/dx_i) R_j / z_j, z the output
    z-plus      convolutions                   the same for z = W+ x+ + b+ + W- x-
    flat        the convolution on the pixels  every input of a window receives the same share
    pass        activations, batch norm        R_in = R_out
    norm        layer norm, group norm         epsilon with the standard deviation held constant
    gate        products                       all to the signal, none to the gate
    gradient    rearrangement, max pooling     relevance goes where the values came from

For one picture every rule is linear in R, whatever neuron R starts from. So a rule is applied in
two steps: to a module and its inputs, which makes the denominators, and to any number of R.

Only modules and functions of the canonical form (``explorer.networks.canonise``) are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from explorer.compute.pulls import Lone, Product, Pull, Share, transposed
from explorer.compute.z_plus import flat, stabilise, z_plus, z_plus_above_zero, z_plus_below_zero
from explorer.networks import modules as m
from explorer.networks.slices import Slice
from explorer.records import MissingRule

Rule = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Pull]
"""(module, its inputs [B,...], its output) -> what pulls relevance of the output down to them."""


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


def pass_on(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """The one input has the relevance of the output."""
    return Pull(lambda relevance: (relevance,), lambda alone: (alone,), passes=True)


def layer_norm(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """epsilon for (x - mean(x)) weight / std + bias with std as a constant (Ali et al. 2022)."""
    axes = tuple(range(-len(module.normalized_shape), 0))
    return _norm(module, inputs, output.shape, axes, module.normalized_shape)


def group_norm(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
    """The same over the channels of each group."""
    groups = torch.Size((len(output), module.num_groups, -1))
    return _norm(module, inputs, groups, (2,), (-1, *[1] * (output.dim() - 2)))


def _norm(
    module: Any, inputs: tuple[Tensor, ...], groups: torch.Size, axes: Any, wide: Sequence[int]
) -> Pull:
    """Mean and deviation are over axes of values in the form ``groups``; weights have ``wide``."""
    scale = torch.rsqrt(inputs[0].reshape(groups).var(axes, False, keepdim=True) + module.eps)

    def normalised(x: Tensor) -> Tensor:
        values = x.reshape(groups)
        made = ((values - values.mean(axes, keepdim=True)) * scale).reshape(x.shape)
        made = made if module.weight is None else made * module.weight.reshape(wide)
        return made if module.bias is None else made + module.bias.reshape(wide)

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
    ((nn.Linear, m.Add, m.Mean, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d), epsilon),
    ((*m.ACTIVATIONS, nn.Sigmoid, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus), pass_on),
    ((nn.BatchNorm1d, nn.BatchNorm2d, m.Scale, m.Shift), pass_on),
    ((nn.LayerNorm,), layer_norm),
    ((nn.GroupNorm,), group_norm),
    ((m.Multiply,), gate),
    ((nn.MaxPool2d, nn.AdaptiveMaxPool2d, m.Concatenate, m.SamePad, nn.ConstantPad2d), None),
    ((nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.Upsample), None),
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
        elif rule is z_plus and _rectified(part.module, node.all_input_nodes[0]):
            rule = z_plus_above_zero
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


def _rectified(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is never negative, as a rectifier made it."""
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, (m.SamePad, nn.MaxPool2d)):
        return _rectified(network, node.all_input_nodes[0])
    return isinstance(module, tuple(m.RECTIFIERS))


def _rule(part: Slice, network: fx.GraphModule, node: fx.Node) -> Rule | None:
    target = str(node.target)
    if node.op != "call_module":
        number = node.target in m.ARITHMETIC and node.meta.get("shape", ()) is None
        if node.target in m.SHAPERS or number:
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
