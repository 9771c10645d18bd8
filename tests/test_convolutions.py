"""Convolutions taken down are those of autograd, by whichever way they go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explorer.compute import convolutions
from explorer.compute.convolutions import convolved
from explorer.compute.pulls import Product, total
from explorer.networks import pointwise, windowed, winograd
from explorer.networks.laid_out import Convolution
from explorer.networks.machine_code import PROCESSORS


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(module: nn.Conv2d) -> nn.Conv2d:
    """The module in float64 with normal weights and biases."""
    module = module.double().eval().requires_grad_(False)
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(normal(*parameter.shape, seed=1 + number))
    return module


def counted(monkeypatch: pytest.MonkeyPatch, kind: type[Convolution]) -> list[Any]:
    """The forms of the maps that convolutions of a kind are of from now on."""
    forms = []
    real = kind.make

    def noted(self: Any, maps: Tensor, *more: Any) -> None:
        forms.append(tuple(maps.shape))
        real(self, maps, *more)

    monkeypatch.setattr(kind, "make", noted)
    return forms


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


@pytest.mark.parametrize(("least", "tile"), [(0.0, 7), (-1.0, 4)])
def test_tiles_are_larger_where_no_weight_is_negative(
    least: float, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = []
    real = winograd.Tiled

    def noted(weight: Tensor, side: int) -> winograd.Tiled:
        sides.append(side)
        return real(weight, side)

    monkeypatch.setattr(winograd, "Tiled", noted)
    conv = nn.Conv2d(32, 48, 3, padding=1).requires_grad_(False)
    conv.weight.copy_(normal(*conv.weight.shape).abs() + least)
    x = normal(2, 32, 14, 14, seed=1).float()
    _, pull = convolved(conv, dict(conv.named_parameters()), x, conv(x))
    gradients = normal(300, 2, 48, 14, 14, seed=2).relu()
    found = pull(gradients.float())[0].flatten(0, 1)
    truth = F.conv_transpose2d(gradients.flatten(0, 1), conv.weight.double(), padding=1)
    assert sides == [tile], "others lose too many digits"
    error, scale = (found.double() - truth).abs(), truth.abs().sum((2, 3))
    assert float(error.max()) < 5e-5 * float(truth.abs().max())
    assert float((error.sum((2, 3)) / scale).max()) < 5e-5


def test_many_wide_maps_go_by_tiles_and_others_the_plain_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = counted(monkeypatch, winograd.Tiled)
    for conv, dtype, turns, goes in (
        (nn.Conv2d(256, 256, 3, padding=1), torch.float32, 40, True),
        (nn.Conv2d(256, 256, 3, padding=1), torch.float32, 2, False),
        (nn.Conv2d(256, 256, 3, padding=1), torch.float64, 20, False),
        (nn.Conv2d(256, 256, 3, padding=1, stride=2), torch.float32, 20, False),
        (nn.Conv2d(256, 256, 3), torch.float32, 20, False),
        (nn.Conv2d(16, 256, 3, padding=1), torch.float32, 20, False),
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


@pytest.mark.parametrize(
    ("conv", "count", "up", "down"),
    [
        (nn.Conv2d(256, 512, 1), 70, True, True),
        (nn.Conv2d(256, 512, 1, bias=False), 70, True, True),
        (nn.Conv2d(256, 512, 1, stride=2), 190, True, False),
        (nn.Conv2d(272, 512, 1), 70, True, False),
        (nn.Conv2d(256, 528, 1), 70, False, True),
        (nn.Conv2d(256, 512, 1), 3, False, False),
        (nn.Conv2d(256, 64, 1), 70, False, False),
        (nn.Conv2d(256, 512, 1).double(), 70, False, False),
        (nn.Conv2d(256, 512, 1, padding=1), 70, True, False),
    ],
)
def test_many_places_of_points_go_by_code_of_our_own(
    conv: nn.Conv2d, count: int, up: bool, down: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = counted(monkeypatch, pointwise.Pointwise)
    for module in (pointwise, windowed, convolutions):
        monkeypatch.setattr(module, "registers", lambda: PROCESSORS["avx512f"])  # of 64 columns
    dtype = conv.weight.dtype
    x = normal(count, conv.in_channels, 7, 5).to(dtype)
    truth = layer(conv)(x.double())
    conv = conv.to(dtype)
    output, pull = convolved(conv, dict(conv.named_parameters()), x, truth)
    near = {"rtol": 0, "atol": 1e-5 * float(truth.abs().max()), "check_dtype": False}
    torch.testing.assert_close(output(), truth, **near)
    assert bool(quick) == up
    quick.clear()
    gradients = normal(2, *truth.shape, seed=3).to(dtype)
    found = pull(gradients)[0]
    leaf = x.double().requires_grad_()
    truth = torch.autograd.grad(conv.double()(leaf), leaf, gradients[1].double())[0]
    near["atol"] = 1e-5 * float(truth.abs().max())
    torch.testing.assert_close(found[1], truth, **near)
    assert bool(quick) == down


@pytest.mark.parametrize(("count", "own"), [(5, True), (4, False)])
def test_with_avx2_fewer_places_and_weights_are_enough(
    count: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = counted(monkeypatch, pointwise.Pointwise)
    for module in (pointwise, windowed, convolutions):
        monkeypatch.setattr(module, "registers", lambda: PROCESSORS["avx2"])
    conv = layer(nn.Conv2d(16, 32, 1)).float()
    x = normal(count, 16, 7, 5).float()
    truth = conv(x)
    output, pull = convolved(conv, dict(conv.named_parameters()), x, truth)
    torch.testing.assert_close(output(), truth)
    gradients = normal(1, *truth.shape, seed=3).float()
    found = F.conv_transpose2d(gradients[0], conv.weight)
    torch.testing.assert_close(pull(gradients)[0][0], found)
    assert len(quick) == 2 * own


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(32, 32, 3, 2, 1, groups=32),
        nn.Conv2d(32, 32, 5, 1, 2, groups=32, bias=False),
        nn.Conv2d(512, 512, 1),
        nn.Conv2d(32, 48, 3, padding=1, bias=False),
    ],
)
def test_what_is_scaled_in_the_same_pass_is_what_is_scaled_after_it(
    conv: nn.Conv2d, turns: int
) -> None:
    count = 12 if conv.kernel_size == (1, 1) else 2
    x = normal(count, conv.in_channels, 14, 13).abs()
    output = layer(conv)(x)
    gradients = normal(turns, *output.shape, seed=3)
    leaf = x.clone().requires_grad_()
    truth = torch.stack([torch.autograd.grad(conv(leaf), leaf, each)[0] for each in gradients])
    below, added = normal(*x.shape, seed=4).abs() + 0.5, normal(*x.shape, seed=5)
    conv, single = conv.float(), x.float()
    made, pull = convolved(conv, dict(conv.named_parameters()), single, output.float(), later=True)
    most = {"rtol": 0, "atol": 2e-5 * float(truth.abs().max()), "check_dtype": False}
    torch.testing.assert_close(made(), output, **most)
    other = normal(*output.shape, seed=6)
    torch.testing.assert_close(made(other.float(), 0.5), (output + other).clamp(min=0.5), **most)

    def share() -> Product:
        (source,) = pull(gradients.float())
        return Product(source, single)

    torch.testing.assert_close(share().alone(single), truth * x, **most)
    torch.testing.assert_close(share().over(None).alone(single), truth * x, **most)
    scaled = share().over(below.float())
    torch.testing.assert_close(scaled.alone(single), truth * x / below, **most)
    one, two = (share().over(below.float()), Product(added.float().expand(turns, *x.shape)))
    sums = total([share(), two], single, below.float())
    torch.testing.assert_close(sums, (truth * x + added) / below, **most)
    torch.testing.assert_close(
        one.add_to(added.float().repeat(turns, 1, 1, 1, 1)), truth * x / below + added, **most
    )
