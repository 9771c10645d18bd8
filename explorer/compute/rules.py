"""Layer-wise relevance propagation: one small rule per kind of module, and the run that uses them.

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

Nothing is hooked onto the modules or changed in them, so a network is never left half prepared.
Only modules and functions of the canonical form (``explorer.networks.canonise``) are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from explorer.networks import modules as m
from explorer.networks.slices import Slice
from explorer.records import MissingRule

Shares = tuple[Tensor | None, ...]
Rule = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Shares]
"""(module, its inputs, relevance of its output) -> the relevance of each input, None for none."""

STABILISER = 1e-6


def stabilise(z: Tensor) -> Tensor:
    """Move every value away from zero by 1e-6, zero itself upwards."""
    return z + torch.where(z < 0, -STABILISER, STABILISER)


def _spread(output: Tensor, leaves: list[Tensor], relevance: Tensor) -> Shares:
    """x_i (dz/dx_i) R / z for every leaf x, z the output."""
    share = relevance / stabilise(output.detach())
    gradients = torch.autograd.grad(output, leaves, share)
    return tuple(x.detach() * g for x, g in zip(leaves, gradients, strict=True))


def _leaves(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in inputs]


def epsilon(module: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
    """Inputs share by what they add to the output, z = W x + b: linear layers, sums, averages."""
    with torch.enable_grad():
        leaves = _leaves(inputs)
        output = module(*leaves)
    return _spread(output, leaves, relevance)


def z_plus(module: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
    """Only what raises the output counts: z = W+ x+ + b+ + W- x-, never negative."""
    x = inputs[0].detach()
    weights = dict(module.named_parameters(recurse=False))
    plus = {name: weight.clamp(min=0) for name, weight in weights.items()}
    signed = bool(x.amin() < 0)  # after a rectifier the negative half is nothing: save its cost
    with torch.enable_grad():
        leaves = _leaves((x.clamp(min=0) if signed else x,))
        parts = [functional_call(module, plus, leaves[0])]
        if signed:
            minus = {n: 0 * w if n == "bias" else w.clamp(max=0) for n, w in weights.items()}
            leaves += _leaves((x.clamp(max=0),))
            parts.append(functional_call(module, minus, leaves[1]))
    z = parts[0].detach().add_(STABILISER)
    share = relevance / (z.add_(parts[1].detach()) if signed else z)
    gradients = torch.autograd.grad(parts, leaves, [share] * len(parts))
    raised = [x.detach() * g for x, g in zip(leaves, gradients, strict=True)]
    return (raised[0] + raised[1] if signed else raised[0],)


def flat(module: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
    """All inputs of a window share alike: x = 1, W = 1, b = 0."""
    ones = {n: 0 * w if n == "bias" else torch.ones_like(w) for n, w in module.named_parameters()}
    with torch.enable_grad():
        leaves = _leaves((torch.ones_like(inputs[0]),))
        output = functional_call(module, ones, leaves[0])
    return _spread(output, leaves, relevance)


def pass_on(module: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
    """The one input has the relevance of the output."""
    return (relevance,)


def layer_norm(module: Any, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
    """epsilon for (x - mean(x)) weight / std + bias with std as a constant (Ali et al. 2022)."""
    axes = tuple(range(-len(module.normalized_shape), 0))
    scale = torch.rsqrt(inputs[0].detach().var(axes, unbiased=False, keepdim=True) + module.eps)
    with torch.enable_grad():
        leaves = _leaves(inputs)
        output = (leaves[0] - leaves[0].mean(axes, keepdim=True)) * scale
        output = output if module.weight is None else output * module.weight
        output = output if module.bias is None else output + module.bias
    return _spread(output, leaves, relevance)


def gate(module: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
    """The larger factor is the signal and gets all; a gate, which is spread over the signal's
    pixels (squeeze and excitation), gets nothing. Factors of one size get half each."""
    first, second = (x.numel() for x in inputs)
    if first == second:
        return relevance / 2, relevance / 2
    return (relevance, None) if first > second else (None, relevance)


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
        raise _missing(", ".join(part.unruled), type(part.module).__name__)
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
        found[node] = rule
    return found


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


class Propagation(fx.Interpreter):
    """Runs a traced slice forward so that its gradients are relevance.

    For an output z and starting relevance R, ``torch.autograd.grad(z, x, R)`` is then the
    relevance of any earlier value x. Raises MissingRule when it is made.
    """

    def __init__(self, part: Slice) -> None:
        self.rules = rules(part)
        super().__init__(part.module)

    def run_node(self, n: fx.Node) -> Any:
        rule = self.rules.get(n)
        if rule is None:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        module = self.fetch_attr(str(n.target))
        return _Step.apply(rule, module, *args, *kwargs.values())


class _Step(torch.autograd.Function):
    """One module going up, its rule coming down."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, module: nn.Module, *inputs: Tensor) -> Any:
        ctx.rule, ctx.module = rule, module
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return module(*inputs)

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor | None) -> Any:
        inputs = ctx.saved_tensors
        if relevance[0] is None:
            return (None, None, *(None for _ in inputs))
        return (None, None, *ctx.rule(ctx.module, inputs, relevance[0]))
