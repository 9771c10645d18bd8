"""Questions to a network that cannot be traced: whole forward passes, watched by hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from explorer.networks import modules as m
from explorer.networks.slices import Slice
from explorer.records import BadInput, Layer

WEIGHTED = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)
Visit = Callable[[Tensor, Tensor], Tensor | None]
"""Told the input and the output of a module's call; an answer replaces the output."""


@dataclass(frozen=True)
class Watched:
    """A layer of a hooked network: the output of the ``number``-th call of the module at
    ``path``, or that call's input (``before``) where the activation is a ReLU of any kind."""

    layer: Layer
    path: str
    number: int
    before: bool

    def browsed(self, given: Tensor, made: Tensor) -> Tensor:
        """[B,C,H,W]: the value whose rectification is browsed."""
        value = given if self.before else made
        if value.dim() == 3:
            value = value.transpose(1, 2)
        return value.reshape(*value.shape, *[1] * (4 - value.dim()))


class Hooked:
    """A network and the outputs of its modules, layers by module path, with ``_1``, ``_2`` and
    so on for further calls of one module. Nothing is known of how they connect, so every layer
    before the last channel-mixing module that comes earlier counts as a possible lower one."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.network = model
        for module in model.modules():
            if getattr(module, "inplace", False):
                cast(Any, module).inplace = False  # a later call would overwrite what is watched
        self.found: Mapping[str, Watched] = _survey(model, x)
        if not self.found:
            raise BadInput("This network has no layer with channels to browse: choose another.")
        layers = [watched.layer for watched in self.found.values()]
        rectified = [layer for layer in layers if layer.rectified]
        spatial = [layer for layer in rectified if layer.height * layer.width > 1]
        self.default = (spatial or rectified or layers)[-1].name

    def aliases(self) -> dict[str, str]:
        """Every module path that denotes a layer, with the layer's name."""
        return {watched.path: name for name, watched in self.found.items() if not watched.number}

    def logits(self, x: Tensor) -> Tensor:
        return self.run(x, {})

    def without(
        self, x: Tensor, layer: str, channels: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        axis = 2 if self._rank3(layer) else 1
        parts = []
        for start in range(0, len(rows), len(x)):
            channel = channels[start : start + len(x)]

            def less(given: Tensor, made: Tensor, channel: Tensor = channel) -> Tensor:
                made = made.clone()
                made.movedim(axis, 1)[torch.arange(len(channel)), channel] = 0
                return made

            parts.append(self.run(x[rows[start : start + len(x)]], {layer: less}))
        return self.logits(x), torch.cat(parts)

    def features(
        self, x: Tensor, layers: Sequence[str], reduce: Callable[[Tensor], Any] | None
    ) -> dict[str, Any]:
        kept: dict[str, Any] = {}

        def keeper(name: str) -> Visit:
            watched = self.found[name]

            def keep(given: Tensor, made: Tensor) -> None:
                value = watched.browsed(given, made)
                value = value.relu() if watched.before else value
                kept[name] = value if reduce is None else reduce(value)

            return keep

        self.run(x, {name: keeper(name) for name in layers})
        return {name: kept[name] for name in layers}

    def slice(self, lower: str | None, upper: str) -> Slice:
        if lower is not None and lower not in self.found[upper].layer.lowers:
            raise BadInput(f"Nothing leads from '{lower}' to '{upper}': choose an earlier layer.")
        axis = 2 if lower is not None and self._rank3(lower) else 1
        return Slice(_Whole(self, lower, upper), lower, upper, axis, False, {})

    def _rank3(self, name: str) -> bool:
        return self.found[name].layer.width == 1 and self.found[name].layer.height > 1

    def inputs(self, x: Tensor, part: Slice) -> tuple[Tensor, ...]:
        if part.lower is None:
            return (x,)
        kept: list[Tensor] = []
        self.run(x, {part.lower: lambda given, made: kept.append(made)})
        return kept[0], x

    def run(self, x: Tensor, visits: Mapping[str, Visit]) -> Tensor:
        """The network's output, while the modules of these layers are visited."""
        calls: Counter[str] = Counter()
        paths = {self.found[name].path for name in visits}
        wanted = {(self.found[n].path, self.found[n].number): visit for n, visit in visits.items()}

        def hook(path: str) -> Callable[..., Tensor | None]:
            def called(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor | None:
                visit = wanted.get((path, calls[path]))
                calls[path] += 1
                return None if visit is None else visit(given[0], made)

            return called

        modules = dict(self.network.named_modules())
        handles = [modules[path].register_forward_hook(hook(path)) for path in sorted(paths)]
        try:
            return cast(Tensor, self.network(x))
        finally:
            for handle in handles:
                handle.remove()


class _Whole(nn.Module):
    """A slice by a whole forward pass in which the lower map is put in its place.

    Takes (lower map, pixels), or the pixels alone where there is no lower layer.
    """

    def __init__(self, core: Hooked, lower: str | None, upper: str) -> None:
        super().__init__()
        self.core = core  # no nn.Module, so the network's modules are not this one's
        self.lower, self.upper = lower, upper

    def forward(self, lower: Tensor, *frontier: Tensor) -> Tensor:
        kept: list[Tensor] = []
        watched = self.core.found[self.upper]

        def keep(given: Tensor, made: Tensor) -> None:
            kept.append(watched.browsed(given, made))

        visits: dict[str, Visit] = {self.upper: keep}
        if self.lower is not None:
            visits[self.lower] = lambda given, made: lower
        self.core.run(frontier[0] if frontier else lower, visits)
        return kept[0]


@dataclass(frozen=True)
class _Call:
    path: str
    number: int
    module: nn.Module
    output: Tensor


def _survey(model: nn.Module, x: Tensor) -> dict[str, Watched]:
    """The layers of a network, found by running it once on ``x`` f32[1,3,H,W]."""
    calls: list[_Call] = []
    numbers: Counter[str] = Counter()

    def hook(path: str) -> Callable[..., None]:
        def called(module: nn.Module, given: Any, made: Any) -> None:
            if isinstance(made, Tensor) and given and isinstance(given[0], Tensor):
                calls.append(_Call(path, numbers[path], module, made))
            numbers[path] += 1

        return called

    handles = [m_.register_forward_hook(hook(path)) for path, m_ in model.named_modules() if path]
    try:
        with torch.no_grad():
            output = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return _watched(calls, output)


def _watched(calls: Sequence[_Call], output: Any) -> dict[str, Watched]:
    """Layers among calls in order of execution, one for each distinct output."""
    together: dict[int, list[_Call]] = {}
    for call in calls:
        together.setdefault(id(call.output), []).append(call)
    found: dict[str, Watched] = {}
    places: list[tuple[Layer, int]] = []
    mixers = [place for place, call in enumerate(calls) if _mixes(call.module)]
    for same in together.values():
        first = same[0]
        if not 2 <= first.output.dim() <= 4 or not _browsable(same, output):
            continue
        place = calls.index(first)
        last = max((p for p in mixers if p <= place), default=-1)
        lowers = [layer for layer, earlier in reversed(places) if earlier < last]
        layer = _layer(same, lowers)
        before = isinstance(first.module, tuple(m.RECTIFIERS))
        found[layer.name] = Watched(layer, first.path, first.number, before)
        places.append((layer, place))
    return found


def _browsable(same: Sequence[_Call], output: Any) -> bool:
    if same[0].output is output or isinstance(same[0].module, m.ACTIVATIONS):
        return True
    return any(_weighted(call.module) > 1 for call in same)


def _layer(same: Sequence[_Call], lowers: Sequence[Layer]) -> Layer:
    first = min(same, key=lambda call: call.path.count("."))
    module, shape = same[0].module, list(same[0].output.shape[1:])
    if len(shape) == 2:
        shape = [shape[1], shape[0]]
    channels, height, width = (*shape, 1, 1)[:3]
    large = min(height * width, 2)
    lower = (one.name for one in lowers if one.rectified and one.height * one.width >= large)
    return Layer(
        name=f"{first.path}_{first.number}" if first.number else first.path,
        channels=channels,
        height=height,
        width=width,
        rectified=isinstance(module, (*m.RECTIFIERS, *m.SMOOTH)),
        ceiling=m.RECTIFIERS.get(type(module)),
        lowers=tuple(one.name for one in lowers),
        lower=next(lower, ""),
    )


def _weighted(module: nn.Module) -> int:
    return sum(isinstance(child, WEIGHTED) for child in module.modules())


def _mixes(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.in_channels > module.groups
    return isinstance(module, WEIGHTED)
