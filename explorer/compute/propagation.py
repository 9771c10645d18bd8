"""One forward pass of a slice, and any number of starts of relevance taken down through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from explorer.compute import narrowing
from explorer.compute.convolutions import gradient_of_convolution, is_flat, is_point
from explorer.compute.joining import Joined
from explorer.compute.pulls import Lone, Make, Product, Pull, Share, gradient, transposed
from explorer.compute.rules import Rule, pass_on
from explorer.compute.z_plus import flat, z_plus, z_plus_above_zero, z_plus_below_zero
from explorer.networks import modules as m
from explorer.networks import quick
from explorer.networks.cores import go_on
from explorer.networks.slices import Slice

LEAST_TURNS = 8
"""With fewer starts on the same pictures, choosing channels takes what it saves."""

FEW = 0.5
"""The upper layer's channels are made alone if they are no more than this share of all."""

Known = Mapping[str, Tensor]
"""Of pictures [B,...]: what convolutions give, by the names of their nodes, and with ``BELOW``
after a name what relevance of that is divided by."""
BELOW = ".below"


@dataclass
class _Step:
    """A value on the way up, and how its relevance comes down to what it was made from. The pull is
    made when relevance first comes by: it holds what the rule needs of the pictures alone."""

    value: Any
    feeders: list[fx.Node]
    make: Make
    module: nn.Module | None = None
    inputs: tuple[Any, ...] = ()
    narrows: bool = False
    pull: Pull | None = None


class Propagation(fx.Interpreter):
    """Runs a slice forward and relevance down it, by a rule for each node; None is the gradient.

    Nothing is hooked onto the modules or changed in them, so a network is never left half prepared.
    """

    def __init__(self, part: Slice, rules: Mapping[fx.Node, Rule | None]) -> None:
        super().__init__(_graph_of(part))
        self._rules = rules
        (self._end,) = next(n for n in self.graph.nodes if n.op == "output").all_input_nodes
        self._last = narrowing.last(cast(fx.GraphModule, self.module), self._end)
        self._joined = Joined(cast(fx.GraphModule, self.module), rules)
        self._only: Tensor | None = None  # of the last values: the channels that are made
        self._known: Known = {}
        self._steps: dict[fx.Node, _Step] = {}  # from the lower map on, in order of execution
        self._open: narrowing.Opened | None = None

    def forward(
        self, *inputs: Tensor, only: Tensor | None = None, known: Known | None = None
    ) -> Tensor:
        """The slice's output [B,C,H,W] for these inputs, which ``down`` starts from; or of the
        channels ``only`` i64[K] alone, where that saves work. Which it was, ``numbered`` knows.
        Of what is ``known`` of the pictures nothing is computed again."""
        self._steps.clear()
        self._open, self._known = None, known or {}
        few = only is not None and self._last and len(only) <= FEW * self._end.meta["shape"][1]
        self._only = only if few else None
        with torch.no_grad():
            output: Tensor = self.run(*inputs)
        return output

    def known(self) -> Known:
        """What is worth knowing when relevance is taken down these pictures again, from whatever
        channels: all that these are to the rules, but the last values. What a rectifier alone reads
        may be cut already, or not: it is cut again."""
        found = {}
        with torch.no_grad():
            for node, step in self._steps.items():
                if step.module and is_flat(step.module) and node not in self._last:
                    found[node.name] = step.value
                    below = step.make(step.module, step.inputs, step.value).below
                    found |= {} if below is None else {node.name + BELOW: below()}
        return found

    def numbered(self, channels: Tensor) -> Tensor:
        """Where these channels, which were asked for, stand in the output."""
        return channels if self._only is None else torch.searchsorted(self._only, channels)

    def largest(self) -> int:
        """How many values the largest map of these pictures has."""
        maps = (step.value for step in self._steps.values())
        return max(each.numel() for each in maps if isinstance(each, Tensor))

    def down(self, start: Tensor | Lone, last: bool = True) -> list[Share]:
        """The shares of the lower map, to be added up, in relevance [T,B,...] of the output.

        All that was kept of the pictures goes on the way when this is the ``last`` start.
        """
        lower, *above = self._steps
        if self._open is None:
            self._open = self._opened(start)
        start = start if isinstance(start, Lone) else start.clone()
        owed: dict[fx.Node, list[Share]] = {self._end: [start]}
        with torch.no_grad():
            for node in reversed(above):
                go_on()
                shares = owed.pop(node, [])
                given = self.through(node, shares) if shares else ()
                for feeder, some in zip(self._steps[node].feeders, given, strict=False):
                    if feeder in self._steps:
                        owed.setdefault(feeder, []).extend(some)
                if last:
                    del self._steps[node]
        return owed.get(lower, [])

    def through(self, node: fx.Node, shares: list[Share]) -> Sequence[list[Share]]:
        """What the shares of a node's value give to each of its feeders."""
        step = self._steps[node]
        pull = step.pull = step.pull or self._made(node, step)
        return pull.down(shares, step.value)

    def _opened(self, start: Tensor | Lone) -> narrowing.Opened:
        """What of each value has to come down, where so much does that it is worth a look."""
        few = len(start.channel if isinstance(start, Lone) else start) < LEAST_TURNS
        values = {node: step.value for node, step in self._steps.items()}
        modules = {
            n: step.module for n, step in self._steps.items() if step.module and step.narrows
        }
        reached = self._reached()
        return narrowing.opened(values, modules, reached, reached if few else values)

    def _reached(self) -> dict[fx.Node, Tensor]:
        """Of rectified values that a convolution at the end alone reads, where few of its channels
        are made, bool[C]: which channels these give relevance to. By z-plus half of the weights
        give none."""
        found = {}
        for node in self._last & self._steps.keys() if self._only is not None else ():
            module, feeder = self._steps[node].module, self._steps[node].feeders[0]
            if isinstance(module, nn.Conv2d) and self._cut(feeder) and len(feeder.users) == 1:
                plus = self._rules.get(node) in (z_plus, z_plus_above_zero, z_plus_below_zero)
                passing = module.weight > 0 if plus else module.weight != 0
                channels = passing.any(0).flatten(1).any(1)
                if channels.float().mean() <= narrowing.WORTH:
                    found[feeder] = channels
        return found

    def _made(self, node: fx.Node, step: _Step) -> Pull:
        if not (self._open and step.narrows):
            return self._knowing(node, step.make(step.module, step.inputs, step.value), None)
        above, feeders = self._open.get(node), [self._open.get(each) for each in step.feeders]
        pull = narrowing.between(step.make, step.module, step.inputs, step.value, above, feeders)
        channels = None if above is None else above.channels
        step.value = narrowing.some(step.value, channels)
        return self._knowing(node, pull, channels)

    def _knowing(self, node: fx.Node, pull: Pull, channels: Tensor | None) -> Pull:
        """A pull of these channels of a value (None: all), with what is known to divide by."""
        if (below := self._known.get(node.name + BELOW)) is None:
            return pull
        chosen = narrowing.some(below, channels)
        return replace(pull, below=lambda: chosen)

    def run_node(self, n: fx.Node) -> Any:
        go_on()
        feeders = [feeder for feeder in n.all_input_nodes if feeder in self._steps]
        rule = self._rules.get(n)
        if n.op == "output" or not feeders:
            value = super().run_node(n)
            if not self._steps:
                self._steps[n] = _Step(value, [], lambda *_: Pull(lambda relevance: ()))
            return value
        module = self._joined.module(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        inputs = (*args, *kwargs.values())
        make = rule or partial(_gradient, cut=self._cut(feeders[0]))
        if self._joined.leaves(n, inputs[0]):
            self._steps[n] = _Step(inputs[0], feeders, pass_on)
            return inputs[0]
        if self._only is not None and n in self._last:
            return self._some(n, self._only, module, inputs, make)
        narrows = rule is not flat and narrowing.narrows(module, inputs)
        if rule is None and not narrows and not (module and is_flat(module)):
            return self._differentiated(n, feeders, module)
        value = self._known.get(n.name)
        if self._joined.cut(n, inputs[0]):
            value = inputs[0]
        elif value is None and isinstance(module, nn.Conv2d) and is_flat(module):
            value = self._joined.made(n, module, inputs[0])
        elif value is None:
            value = super().run_node(n)
        named = [*n.args, *n.kwargs.values()]
        if narrows and module is not None and is_point(module, spaced=True):
            make = narrowing.at_steps(make)
        self._steps[n] = _Step(value, named, make, module, inputs, narrows)  # type: ignore[arg-type]
        return value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A convolution that no relevance comes to goes the way that is quick too."""
        module = self.fetch_attr(str(target))
        way = quick.convolution(module, args[0]) if is_flat(module) else None
        return way(args[0], module.bias) if way else super().call_module(target, args, kwargs)

    def _some(
        self, n: fx.Node, only: Tensor, module: Any, inputs: tuple[Any, ...], make: Make
    ) -> Tensor:
        """These channels alone of one of the last values."""
        named, narrows = [*n.args, *n.kwargs.values()], self._rules.get(n) is not flat
        if isinstance(module, m.Add):
            as_is = [x.shape[1] in (1, len(only)) for x in inputs]
            make = narrowing.at_end(make, only, as_is)
            value: Tensor = module(*narrowing.of_end(inputs, only, as_is))
        else:
            module = narrowing.with_channels(module, only, None)
            value = module(*inputs)
        self._steps[n] = _Step(value, named, make, module, inputs, narrows)  # type: ignore[arg-type]
        return value

    def _cut(self, node: fx.Node) -> bool:
        """Whether a rectifier made a value."""
        return isinstance(self._steps[node].module, tuple(m.RECTIFIERS))

    def _differentiated(self, n: fx.Node, feeders: list[fx.Node], module: nn.Module | None) -> Any:
        """The value of a node whose relevance follows the gradient, if it has one."""
        if module is None and not _differentiable(_whole(value := super().run_node(n))):
            return value

        def call(*values: Any) -> Any:
            given = dict(zip(feeders, values, strict=True))
            args, kwargs = (
                fx.node.map_arg(a, lambda node: given.get(node, self.env[node]))
                for a in (n.args, n.kwargs)
            )
            return _whole(getattr(self, n.op)(n.target, args, kwargs))

        given = [self.env[feeder] for feeder in feeders]
        value, pull = transposed(call, *given)
        adds = _adds(module, given, value)
        self._steps[n] = _Step(value, feeders, lambda *_: gradient(pull, adds))
        return value


def _gradient(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, cut: bool) -> Pull:
    """The gradient of a module that narrows, whose first input is ``cut`` at zero or not."""
    if isinstance(module, nn.Conv2d):
        return gradient_of_convolution(module, inputs[0], output, cut)
    pull = transposed(module, *inputs)[1]
    if isinstance(module, m.Add):
        return gradient(pull, _adds(module, inputs, output))
    (gate,) = pull(torch.ones_like(output)[None])
    return Pull(lambda relevance: (Product(relevance, gate[0], shared=True),))


def _adds(module: nn.Module | None, inputs: Sequence[Tensor], output: Tensor) -> bool:
    """Whether a module adds maps of one form."""
    return isinstance(module, m.Add) and all(x.shape == output.shape for x in inputs)


def _whole(value: Any) -> Any:
    """A value with an empty map where a call gives several and leaves one out, as attention does
    its weights: None can have no relevance."""
    if not isinstance(value, tuple):
        return value
    return tuple(torch.empty(0) if each is None else each for each in value)


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
    names = ("lower",) if part.lower is None else ("lower", "pixels")
    inputs = tuple(graph.placeholder(name) for name in names)
    graph.output(graph.call_module("whole", inputs))
    return fx.GraphModule({"whole": part.module}, graph)
