"""How near a scan and relevance are to what their convolutions alone take, each by the fastest way.

The convolutions of the work are noted as they run. Then each is timed alone, by our own code where
the work uses that and by every operator of PyTorch that computes it, and the fastest of these one
after the other, in turn with the work. So better code around the same convolutions cannot be faster
than that; a way that needs fewer of them, or better code for them, can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.interleaved import interleave, spread
from benchmarks.options import Bench, Options
from benchmarks.relevance import PAIRS, REFERENCES, RULES
from benchmarks.scanning import blocks
from explorer.compute import attribution
from explorer.compute.passes import batch
from explorer.compute.scan import launch
from explorer.networks.laid_out import Convolution
from explorer.networks.slices import Slice
from explorer.networks.windowed import Transposed, Windowed
from explorer.networks.winograd import Tiled

SCANNED, TOGETHER = 32, 50
"""Pictures of a scan, and references of a neuron, that run at once."""
ROUNDS, TRIES = 5, 3

Work = Callable[[], Any]


def measure(options: Options) -> dict[str, Any]:
    """Milliseconds of a picture's scan (four blocks stored), of 100 references of a neuron whose
    lower maps are at hand, and of such maps: of the convolutions alone, and how many times as long
    all takes."""
    if options.quick:
        return {"limits_skipped": "Not with --quick."}
    figures: dict[str, float] = {}
    for name, (work, share) in _works(Bench(options)).items():
        seconds = interleave({"work": work, "alone": fastest(work)}, ROUNDS)
        figures |= spread(f"limits_{name}_ms", 1000 * share * seconds["alone"])
        figures |= spread(f"limits_{name}_over", seconds["work"] / seconds["alone"])
    return figures


def _works(bench: Bench) -> dict[str, tuple[Work, float]]:
    """What is looked at, and which share of the figure that is."""
    lab, count = bench.lab(), len(bench.images)
    network = lab.model
    views = np.stack([lab.view(image % count) for image in range(SCANNED)])

    def scan() -> Any:
        return launch(network, views, blocks(network))()

    def asking(part: Slice, inputs: tuple[Tensor, ...], rule: str) -> Work:
        pairs = torch.full((TOGETHER,), 7), torch.arange(TOGETHER)
        return lambda: attribution.relevance(part, inputs, *pairs, rule)

    works: dict[str, tuple[Work, float]] = {"scan": (scan, 1 / SCANNED)}
    x = batch(lab, np.arange(TOGETHER) % count)
    for short, between in PAIRS.items():
        part = network.slice(*between)
        inputs = network.inputs(x, part)
        works[f"{short}lower_maps"] = partial(network.inputs, x, part), REFERENCES / TOGETHER
        for rule in RULES:
            work = asking(part, inputs, rule)
            works[f"relevance_{short}{rule}"] = work, REFERENCES / TOGETHER
    return works


def fastest(work: Work) -> Work:
    """The convolutions of some work and nothing else, each by what computes it fastest."""
    read: dict[tuple[Any, ...], Tensor] = {}
    with torch.no_grad(), _Noting() as noting, _noting_own(noting.calls, read):
        work()
    chosen = []
    for (name, *about), count in noting.calls.items():
        ways = _ways(name, *about, read=read.get((name, *about)))
        chosen.append((min(ways, key=_seconds), count))

    def alone() -> None:
        with torch.no_grad():
            for way, count in chosen:
                for _ in range(count):
                    way()

    return alone


class _Noting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the convolutions that run inside by PyTorch's operators, by their form."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[tuple[Any, ...]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default:
            x, weight, _, stride, padding, dilation, turned, _, groups = args
            self._note(x, weight, stride, padding, dilation, groups, turned)
        elif func is torch.ops.mkldnn._convolution_pointwise.default:
            x, weight, _, padding, stride, dilation, groups = args[:7]
            self._note(x, weight, stride, padding, dilation, groups, False)
        elif func is torch.ops.mkldnn._convolution_pointwise.binary:
            x, _, weight, _, padding, stride, dilation, groups = args[:8]
            self._note(x, weight, stride, padding, dilation, groups, False)
        return func(*args, **(kwargs or {}))

    def _note(self, x: Tensor, weight: Tensor, *more: Any) -> None:
        form = (tuple(each) if isinstance(each, list) else each for each in more)
        self.calls["convolution", tuple(x.shape), tuple(weight.shape), *form] += 1


def _noting_own(
    calls: Counter[tuple[Any, ...]], read: dict[tuple[Any, ...], Tensor]
) -> AbstractContextManager[Any]:
    """Counts those by code of our own, which are no operators of PyTorch, while it is entered, and
    keeps the first maps that each form reads: how long these take depends on how much is zero."""

    def noted(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(own: Any, maps: Tensor, *more: Any) -> Tensor:
            if isinstance(own, Transposed):  # its parts are convolutions, which are counted
                return real(own, maps, *more)
            key = "own", tuple(maps.shape), tuple(own.weight.shape), type(own), _told(own)
            calls[key] += 1
            if key not in read:
                read[key] = maps.clone()
            return real(own, maps, *more)

        return call

    ways: Any = {name: noted(getattr(Convolution, name)) for name in ("__call__", "scaled")}
    both: AbstractContextManager[Any] = patch.multiple(Convolution, **ways)
    return both


def _told(own: Any) -> Any:
    """What code of our own was told beside the weights."""
    if isinstance(own, Tiled):
        return own.side
    return (own.step, own.border) if isinstance(own, Windowed) else own.step


def _ways(
    name: str, first: Sequence[int], second: Sequence[int], *more: Any, read: Tensor | None = None
) -> list[Work]:
    """What computes one call, on weights of its form and on maps of it, or those that are read."""
    if name == "own":
        kind, form = more
        assert read is not None
        x = read.contiguous(memory_format=torch.channels_last)
        weight = torch.rand(*second).sub_(0.5)
        own: Convolution = kind(weight, form)
        around = own.border if isinstance(own, Windowed) else ((second[2] // 2,) * 2,) * 2
        if any(before != after for before, after in around):
            return [lambda: own(x)]  # PyTorch's operators have no such border
        steps, border = (own.step,) * 2, [before for before, _ in around]
        plain = _ways("convolution", first, second, steps, border, (1, 1), 1, False)
        return [*plain, lambda: own(x)]
    stride, padding, dilation, groups, turned = more
    x = torch.rand(*first).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(*second).sub_(0.5).contiguous(memory_format=torch.channels_last)
    if turned:
        ways: list[Work] = [
            lambda: F.conv_transpose2d(x, weight, None, stride, padding, 0, groups, dilation)
        ]
    else:
        call: Any = torch.ops.mkldnn._convolution_pointwise
        ways = [
            lambda: F.conv2d(x, weight, None, stride, padding, dilation, groups),
            lambda: call(x, weight, None, padding, stride, dilation, groups, "none", [], ""),
        ]
    if groups == 1 and {*stride, *dilation} == {1}:
        ways += _dense(x, weight, padding, turned)
    return ways


def _dense(x: Tensor, weight: Tensor, padding: Sequence[int], turned: bool) -> list[Work]:
    """More ways for steps of one."""
    straight = weight.transpose(0, 1).flip(2, 3) if turned else weight
    straight = straight.contiguous(memory_format=torch.channels_last)
    pairs = zip(weight.shape[2:], padding, strict=True)
    border = [side - 1 - each if turned else each for side, each in pairs]
    ways: list[Work] = [lambda: F.conv2d(x, straight, None, 1, border)]
    if tuple(weight.shape[2:]) != (3, 3) or border != [1, 1]:
        return ways
    plain, bias = x.contiguous(), torch.zeros(len(straight))
    if torch._nnpack_available():
        kernel = straight.contiguous()
        ways.append(lambda: torch._nnpack_spatial_convolution(plain, kernel, bias, border, [1, 1]))
    return ways


def _seconds(way: Work) -> float:
    with torch.no_grad():
        return float(interleave({"way": way}, TRIES)["way"].min())
