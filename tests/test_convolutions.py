"""Convolutions taken down are those of autograd, by whichever way they go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explorer.compute import winograd
from explorer.compute.convolutions import convolved


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(module: nn.Conv2d) -> nn.Conv2d:
    """The module in float64 with normal weights and biases."""
    module = module.double().eval().requires_grad_(False)
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(normal(*parameter.shape, seed=1 + number))
    return module


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_convolutions_are_transposed_however_they_pad(mode: str, padding: Any) -> None:
    conv = layer(nn.Conv2d(2, 3, 3, padding=padding, padding_mode=mode))
    x = normal(2, 2, 6, 5)
    weights = dict(conv.named_parameters())
    truth = conv(x)
    output, pull = convolved(conv, weights, x, torch.empty_like(truth))
    assert torch.equal(output(), truth)
    gradients = normal(4, *truth.shape, seed=3)
    for gradient, found in zip(gradients, pull(gradients)[0], strict=True):
        leaf = x.clone().requires_grad_()
        torch.testing.assert_close(found, torch.autograd.grad(conv(leaf), leaf, gradient)[0])


@pytest.mark.parametrize("size", [(7, 7), (14, 10), (4, 3), (1, 1)])
def test_quick_transposed_convolutions_are_plain_ones(size: tuple[int, int]) -> None:
    weight, maps = normal(6, 5, 3, 3, seed=1), normal(4, 6, *size, seed=2)
    truth = F.conv_transpose2d(maps, weight, padding=1)
    found = winograd.Transposed(weight.float())(maps.float())
    assert found.shape == truth.shape
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=1e-5 * float(truth.abs().max()))


@pytest.mark.parametrize(
    ("size", "tile"), [((7, 7), 7), ((8, 8), 4), ((10, 10), 5), ((12, 11), 6), ((14, 14), 7)]
)
def test_tiles_are_those_that_fit_where_no_weight_is_negative(
    size: tuple[int, int], tile: int
) -> None:
    weight, maps = normal(6, 5, 3, 3, seed=1).relu(), normal(300, 6, *size, seed=2).relu()
    quick, signed = (winograd.Transposed(each.float()) for each in (weight, weight - 1))
    assert quick._tile(300, size) == tile
    assert signed._tile(300, size) == 4, "others lose too many digits"
    assert quick._tile(2, size) == 4, "weights of larger ones take longer to make"
    truth = F.conv_transpose2d(maps, weight, padding=1)
    error = (quick(maps.float()).double() - truth).abs()
    assert float(error.max()) < 5e-5 * float(truth.max())
    assert float((error.sum((2, 3)) / truth.sum((2, 3))).max()) < 5e-5


def test_many_wide_maps_go_the_quick_way_and_others_the_plain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = []
    real = winograd.Transposed.__call__

    def counted(self: winograd.Transposed, maps: Tensor) -> Tensor:
        quick.append(tuple(maps.shape))
        return real(self, maps)

    monkeypatch.setattr(winograd.Transposed, "__call__", counted)
    for conv, dtype, turns, goes in (
        (nn.Conv2d(256, 256, 3, padding=1), torch.float32, 20, True),
        (nn.Conv2d(256, 256, 3, padding=1), torch.float32, 2, False),
        (nn.Conv2d(256, 256, 3, padding=1), torch.float64, 20, False),
        (nn.Conv2d(256, 256, 3, padding=1, stride=2), torch.float32, 20, False),
        (nn.Conv2d(256, 256, 3), torch.float32, 20, False),
        (nn.Conv2d(64, 256, 3, padding=1), torch.float32, 20, False),
    ):
        conv = layer(conv).to(dtype)
        x = normal(2, conv.in_channels, 6, 5).to(dtype)
        output = conv(x)
        _, pull = convolved(conv, dict(conv.named_parameters()), x, output)
        gradients = normal(turns, *output.shape, seed=3).to(dtype)
        found = pull(gradients)[0]
        leaf = x.clone().requires_grad_()
        truth = torch.autograd.grad(conv(leaf), leaf, gradients[0])[0]
        torch.testing.assert_close(found[0], truth, rtol=0, atol=1e-4 * float(truth.abs().max()))
        assert bool(quick) == goes
        quick.clear()
