"""What a convolution or linear layer reads and what rows of weights make of it, in forward passes
that stop at the layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from explorer.networks.surgery import Weighted


class _Reached(Exception):
    """The layer was reached: the rest of the pass is not needed."""


@torch.no_grad()
def entering(model: nn.Module, path: str, x: Tensor) -> Tensor:
    """What enters the module at ``path`` for pictures ``x``; the pass stops there."""
    kept: list[Tensor] = []

    def stop(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0])
        raise _Reached

    handle = model.get_submodule(path).register_forward_pre_hook(stop)
    try:
        model(x)
    except _Reached:
        pass
    finally:
        handle.remove()
    return kept[0]


def sums(layer: Weighted, h: Tensor) -> Tensor:
    """[B,G,I]: over the places of the output, sums of what each input unit (input channel of
    group G, kernel offset) reads; for a linear layer sums of its inputs, G = 1.

    The sum over places of a row's output is the product of the row with these sums.
    """
    if isinstance(layer, nn.Linear):
        return h.flatten(1, -2).sum(1)[:, None] if h.dim() > 2 else h[:, None]
    padded = _padded(layer, h)
    size = _places(layer, padded)
    offsets = [
        padded[
            :, :, up : up + down * (rows - 1) + 1 : down, left : left + over * (cols - 1) + 1 : over
        ]
        for up, left in _offsets(layer)
        for (down, over), (rows, cols) in ((layer.stride, size),)
    ]
    units = torch.stack([part.sum((2, 3)) for part in offsets], 2)
    return units.reshape(len(h), layer.groups, -1)


def units(layer: Weighted, h: Tensor, group: int) -> Tensor:
    """[B,P,I]: what each input unit of a group reads at each of P places, in the order of the
    weights."""
    if isinstance(layer, nn.Linear):
        return h.flatten(1, -2) if h.dim() > 2 else h[:, None]
    width = layer.in_channels // layer.groups
    part = _padded(layer, h)[:, group * width : (group + 1) * width]
    kernel: dict[str, Any] = {"dilation": layer.dilation, "stride": layer.stride}
    return F.unfold(part, cast(Any, layer.kernel_size), **kernel).transpose(1, 2)


def outputs(layer: Weighted, h: Tensor, rows: Tensor, bias: Tensor | None, group: int) -> Tensor:
    """[B,R,P]: what rows [R,I] make of the inputs of a group at each of P places."""
    if isinstance(layer, nn.Linear):
        made = F.linear(h, rows, bias)
        return made.flatten(1, -2).transpose(1, 2) if made.dim() > 2 else made[..., None]
    width = layer.in_channels // layer.groups
    part = _padded(layer, h)[:, group * width : (group + 1) * width]
    weight = rows.reshape(len(rows), *layer.weight.shape[1:])
    return F.conv2d(
        part, weight, bias, cast(Any, layer.stride), 0, cast(Any, layer.dilation)
    ).flatten(2)


def _padded(layer: nn.Conv2d, h: Tensor) -> Tensor:
    """The input with the zeros (or whatever the layer pads with) around it."""
    if isinstance(layer, Conv2dSame):
        kernel, stride, dilation = map(list, (layer.kernel_size, layer.stride, layer.dilation))
        return cast(Tensor, pad_same(h, kernel, stride, dilation))
    pads = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(h, pads, mode) if any(pads) else h


def _places(layer: nn.Conv2d, padded: Tensor) -> tuple[int, ...]:
    """Height and width of the output."""
    return tuple(
        (padded.shape[2 + axis] - layer.dilation[axis] * (layer.kernel_size[axis] - 1) - 1)
        // layer.stride[axis]
        + 1
        for axis in (0, 1)
    )


def _offsets(layer: nn.Conv2d) -> list[tuple[int, int]]:
    """Row and column of each kernel offset, in the order of the weights."""
    high, wide = layer.kernel_size
    down, over = layer.dilation
    return [(y * down, x * over) for y in range(high) for x in range(wide)]


@dataclass
class Passing:
    """What a pass left behind: the layer's input and output, the tail's activation, the logits."""

    entered: Tensor
    made: Tensor
    activated: Tensor | None
    logits: Tensor


def watch(
    model: nn.Module, path: str, x: Tensor, activation: str = "", cut: bool = False
) -> Passing:
    """One whole pass. With ``cut`` the layer's output is a new leaf, so that a gradient reaches
    only what lies behind it; ``activation`` is a module whose last output is kept."""
    kept: dict[str, Tensor] = {}

    def layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        kept["entered"] = inputs[0].detach()
        kept["made"] = output.detach().requires_grad_() if cut else output
        return kept["made"] if cut else None

    def last(module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept["activated"] = output

    hooks = {path: layer} | ({activation: last} if activation else {})
    with _hooks(model, hooks), torch.set_grad_enabled(cut):
        logits = model(x)
    return Passing(kept["entered"], kept["made"], kept.get("activated"), logits)


@contextmanager
def _hooks(model: nn.Module, hooks: dict[str, Any]) -> Iterator[None]:
    handles = [model.get_submodule(at).register_forward_hook(hook) for at, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def multiplications(model: nn.Module, x: Tensor) -> int:
    """Multiply-adds of the convolutions and linear layers for one picture ``x`` [1,3,H,W]."""
    total = 0

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    kinds = (nn.Conv2d, nn.Linear)
    with _hooks(model, {p: count for p, each in model.named_modules() if isinstance(each, kinds)}):
        model(x)
    return total
