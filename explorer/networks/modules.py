"""Functions of networks as modules, so that every operation of a traced network can carry a
relevance rule, and the table that turns functional calls into them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Border = tuple[tuple[int, int], tuple[int, int]]
"""Zeros above and below maps, to the left and to the right."""


class Add(nn.Module):
    """The sum of two maps (a residual connection)."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second


class Multiply(nn.Module):
    """The product of two maps (a gate)."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second


class Concatenate(nn.Module):
    """Maps side by side along ``dim``."""

    def __init__(self, dim: int = 0) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, self.dim)


class Scale(nn.Module):
    """A map times a constant (a number or a tensor of the network, such as a layer scale)."""

    factor: Tensor

    def __init__(self, factor: float | Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", torch.as_tensor(factor).detach())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Shift(nn.Module):
    """A map plus a constant (a number or a tensor of the network)."""

    offset: Tensor

    def __init__(self, offset: float | Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", torch.as_tensor(offset).detach())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


class Mean(nn.Module):
    """The mean over some dimensions (global average pooling)."""

    def __init__(self, dim: Sequence[int] | int, keepdim: bool = False) -> None:
        super().__init__()
        self.dim = (dim,) if isinstance(dim, int) else tuple(dim)
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dim, self.keepdim)


class SamePad(nn.Module):
    """TensorFlow's "same" padding with zeros: pads so that a convolution of this kernel, stride
    and dilation gives ceil(side / stride), the odd pixel at the bottom and right."""

    def __init__(
        self, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation = kernel, stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads(x))

    def pads(self, x: Tensor) -> list[int]:
        """How many zeros to put to the left and right, above and below."""
        pads: list[int] = []
        for axis in (1, 0):
            side, stride = x.shape[axis - 2], self.stride[axis]
            reach = (-(-side // stride) - 1) * stride + self.dilation[axis] * (
                self.kernel[axis] - 1
            )
            total = max(reach + 1 - side, 0)
            pads += [total // 2, total - total // 2]
        return pads

    def border(self, x: Tensor) -> Border:
        """The same zeros, above and below, to the left and right."""
        left, right, above, below = self.pads(x)
        return (above, below), (left, right)


class Surrounded(nn.Conv2d):
    """A convolution, by the same weights, of maps that are surrounded by ``more`` zeros first."""

    def __init__(self, convolution: nn.Conv2d, more: Border) -> None:
        own = convolution
        names = ("kernel_size", "stride", "padding", "dilation", "groups")
        about: Any = {name: getattr(own, name) for name in names}
        super().__init__(own.in_channels, own.out_channels, device="meta", **about)
        self.weight, self.bias, self.more = own.weight, own.bias, more

    def forward(self, x: Tensor) -> Tensor:
        lines, columns = self.more
        return super().forward(F.pad(x, (*columns, *lines)))


RECTIFIERS: dict[type[nn.Module], float | None] = {nn.ReLU: None, nn.ReLU6: 6.0}
"""Activations that clip at zero, with their ceiling."""

SMOOTH: tuple[type[nn.Module], ...] = (nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish)
"""Activations that all but vanish below zero."""

SIGNED: tuple[type[nn.Module], ...] = (nn.LeakyReLU, nn.ELU, nn.CELU, nn.PReLU, nn.Tanh, nn.SELU)
"""Activations that keep negative values."""

ACTIVATIONS = (*RECTIFIERS, *SMOOTH, *SIGNED)


def own(module: nn.Module) -> nn.Module:
    """A module of its own that shares the parameters and works on none of its inputs."""
    clone = copy.copy(module)
    for name in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
        setattr(clone, name, type(getattr(module, name))(getattr(module, name)))
    for name, child in module._modules.items():
        clone._modules[name] = own(child) if child is not None else None
    if getattr(clone, "inplace", False):
        cast(Any, clone).inplace = False
    return clone


def channels_last(network: nn.Module) -> nn.Module:
    """The network itself, with all that has two axes of space laid out so; ``Module.to`` fails
    where something has three."""
    for each in (*network.parameters(), *network.buffers()):
        if each.dim() == 4:
            each.data = each.data.contiguous(memory_format=torch.channels_last)
    return network


def parametrised(module: nn.Module, weight: Tensor | None, bias: Tensor | None) -> nn.Module:
    """``module`` with these tensors as its weight and bias (shared, not copied)."""
    for name, value in (("weight", weight), ("bias", bias)):
        kept = value if value is None or isinstance(value, nn.Parameter) else nn.Parameter(value)
        module.register_parameter(name, kept)
    return module


def _layer_norm(
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> nn.Module:
    return parametrised(nn.LayerNorm(list(shape), eps, device="meta"), weight, bias)


def _group_norm(
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> nn.Module:
    channels = num_groups if weight is None else len(weight)
    return parametrised(nn.GroupNorm(num_groups, channels, eps, device="meta"), weight, bias)


def _convolution(
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> nn.Module:
    outer, inner, high, wide = weight.shape
    about = stride, padding, dilation, groups
    made = nn.Conv2d(inner * groups, outer, (high, wide), *about, device="meta")
    return parametrised(made, weight, bias)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    return parametrised(nn.Linear(weight.shape[1], weight.shape[0], device="meta"), weight, bias)


def _max_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


def _plain(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    """A builder that drops the ``inplace`` argument: no call may change another's input."""
    return lambda inplace=False: kind()


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


MODULES: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), _plain(nn.ReLU)),
    F.relu6: _plain(nn.ReLU6),
    F.silu: _plain(nn.SiLU),
    F.mish: _plain(nn.Mish),
    F.hardswish: _plain(nn.Hardswish),
    F.hardsigmoid: _plain(nn.Hardsigmoid),
    F.gelu: lambda approximate="none": nn.GELU(approximate),
    F.leaky_relu: lambda negative_slope=0.01, inplace=False: nn.LeakyReLU(negative_slope),
    F.elu: lambda alpha=1.0, inplace=False: nn.ELU(alpha),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), nn.Sigmoid),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh"), nn.Tanh),
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys((torch.mean, "mean"), Mean),
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.conv2d: _convolution,
    F.linear: _linear,
}
"""Functions and method names of one map; the rest of the call's arguments go to the builder."""

ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
PRODUCTS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
DIFFERENCES = {operator.sub, operator.isub, torch.sub, "sub", "sub_"}
QUOTIENTS = {operator.truediv, operator.itruediv, torch.div, "div", "div_"}
JOINS = {torch.cat, torch.concat}

ARITHMETIC = {operator.add, operator.sub, operator.mul, operator.truediv, operator.mod}
"""What networks also do to numbers, such as sides of maps, that carry no relevance."""

SHAPERS = {
    *(operator.getitem, getattr, F.pad, torch.permute, torch.transpose, torch.reshape),
    *(torch.movedim, torch.unsqueeze, torch.squeeze, torch.chunk, torch.split, torch.unbind),
    *("permute", "transpose", "reshape", "view", "contiguous", "size", "dim", "unsqueeze"),
    *("squeeze", "chunk", "split", "unbind", "expand", "expand_as", "reshape_as", "clone"),
    *("detach", "to", "type_as", F.interpolate),
    *(operator.floordiv, operator.eq, torch._assert),
}
"""Calls that only move, cut or copy values: relevance follows them as gradients do."""
