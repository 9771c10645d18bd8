"""One forward pass of a slice, and any number of starts of relevance taken down through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from explorer.compute.pulls import Lone, Pull, Share, convolved, gradient, total, transposed
from explorer.compute.rules import Rule
from explorer.networks.slices import Slice


@dataclass
class _Step:
    """A value on the way up, and how its relevance comes down to what it was made from. The pull is
    made when relevance first comes by: it holds what the rule needs of the pictures alone."""

    value: Any
    feeders: list[fx.Node]
    make: Callable[[], Pull]
    pull: Pull | None = None


class Propagation(fx.Interpreter):
    """Runs a slice forward and relevance down it, by a rule for each node; None is the gradient.

    Nothing is hooked onto the modules or changed in them, so a network is never left half prepared.
    """

    def __init__(self, part: Slice, rules: Mapping[fx.Node, Rule | None]) -> None:
        super().__init__(_graph_of(part))
        self._rules = rules
        (self._end,) = next(n for n in self.graph.nodes if n.op == "output").all_input_nodes
        self._steps: dict[fx.Node, _Step] = {}  # from the lower map on, in order of execution

    def forward(self, *inputs: Tensor) -> Tensor:
        """The slice's output [B,C,H,W] for these inputs, which ``down`` starts from."""
        self._steps.clear()
        with torch.no_grad():
            output: Tensor = self.run(*inputs)
        return output

    def down(self, start: Tensor | Lone, last: bool = True) -> list[Share]:
        """The shares of the lower map, to be added up, in relevance [T,B,...] of the output.

        All that was kept of the pictures goes on the way when this is the ``last`` start.
        """
        lower, *above = self._steps
        owed: dict[fx.Node, list[Share]] = {self._end: [start]}
        with torch.no_grad():
            for node in reversed(above):
                shares = owed.pop(node, [])
                given = self.through(node, shares) if shares else ()
                for feeder, share in zip(self._steps[node].feeders, given, strict=False):
                    if share is not None and feeder in self._steps:
                        owed.setdefault(feeder, []).append(share)
                if last:
                    del self._steps[node]
        return owed.get(lower, [])

    def through(self, node: fx.Node, shares: list[Share]) -> tuple[Share | None, ...]:
        """What the shares of a node's value give to each of its feeders."""
        step = self._steps[node]
        step.pull = step.pull or step.make()
        (only, *more) = shares
        if step.pull.lone is not None and isinstance(only, Lone) and not more:
            return step.pull.lone(only)
        return step.pull.whole(total(shares, step.value))

    def run_node(self, n: fx.Node) -> Any:
        feeders = [feeder for feeder in n.all_input_nodes if feeder in self._steps]
        rule = self._rules.get(n)
        if n.op == "output" or not feeders:
            value = super().run_node(n)
            if not self._steps:
                self._steps[n] = _Step(value, [], lambda: Pull(lambda relevance: ()))
        elif rule is not None:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            value = super().run_node(n)
            made = partial(rule, self.fetch_attr(str(n.target)), (*args, *kwargs.values()), value)
            self._steps[n] = _Step(value, [*n.args, *n.kwargs.values()], made)  # type: ignore[list-item]
        else:
            value = self._differentiated(n, feeders)
        return value

    def _differentiated(self, n: fx.Node, feeders: list[fx.Node]) -> Any:
        """The value of a node whose relevance follows the gradient, if it has one."""
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if module is None and not _differentiable(value := super().run_node(n)):
            return value

        def call(*values: Any) -> Any:
            given = dict(zip(feeders, values, strict=True))
            args, kwargs = (
                fx.node.map_arg(a, lambda node: given.get(node, self.env[node]))
                for a in (n.args, n.kwargs)
            )
            return getattr(self, n.op)(n.target, args, kwargs)

        values = [self.env[feeder] for feeder in feeders]
        if isinstance(module, nn.Conv2d):
            value, pull = convolved(module, dict(module.named_parameters()), *values)
        else:
            value, pull = transposed(call, *values)
        self._steps[n] = _Step(value, feeders, lambda: gradient(module, pull))
        return value


def _differentiable(value: Any) -> bool:
    """Whether a value is a map, or a tuple of maps."""
    if isinstance(value, tuple):
        return bool(value) and all(_differentiable(each) for each in value)
    return isinstance(value, Tensor) and value.is_floating_point()


def _graph_of(part: Slice) -> fx.GraphModule:
    """The graph of a slice; of one that is not traced, a single call."""
    if isinstance(part.module, fx.GraphModule):
        return part.module
    graph = fx.Graph()
    inputs = [graph.placeholder("lower"), *[graph.placeholder("pixels")] * (part.lower is not None)]
    graph.output(graph.call_module("whole", tuple(inputs)))
    return fx.GraphModule({"whole": part.module}, graph)
