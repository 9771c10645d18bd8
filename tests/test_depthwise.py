"""Depthwise convolutions by machine code of our own are plain ones, and so they are transposed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from explorer.networks import cores, depthwise, fusing, laid_out, quick
from explorer.networks import modules as m
from explorer.networks.depthwise import Depthwise, Transposed, suits
from explorer.networks.fusing import fuse
from explorer.networks.laid_out import form_of
from explorer.networks.machine_code import PROCESSORS

SIZES = [(7, 7), (14, 9), (5, 16), (3, 1), (30, 2)]


@pytest.fixture(params=PROCESSORS, autouse=True)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "registers", lambda: PROCESSORS[request.param])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(channels: int, kernel: Any, step: int, padding: Any, **more: Any) -> nn.Conv2d:
    made = nn.Conv2d(channels, channels, kernel, step, padding, groups=channels, **more)
    return made.requires_grad_(False)


def too_small(module: nn.Conv2d, size: tuple[int, int]) -> bool:
    """Whether maps have no room for a window, which PyTorch refuses too."""
    each = zip(size, module.padding, module.kernel_size, strict=True)
    return any(length + 2 * zeros < taps for length, zeros, taps in each)


def near(found: Tensor, truth: Tensor) -> None:
    assert found.shape == truth.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert float((found.double() - truth).abs().max()) <= 2e-6 * float(truth.abs().max())


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "padding"), [((3, 3), 1), ((5, 3), (2, 0)), ((1, 7), (3, 3))])
def test_they_are_convolutions(step: int, size: tuple[int, int], kernel: Any, padding: Any) -> None:
    module, maps = layer(48, kernel, step, padding), normal(3, 48, *size, seed=1)
    if not suits(module, module.weight, maps):
        assert too_small(module, size)
        return
    way = Depthwise(module.weight, form_of(module))
    truth = module.double()(maps.double())
    bias = module.bias.float()
    near(way(maps, bias), truth)
    near(way(maps, bias, least=0.1, most=0.4), truth.clamp(0.1, 0.4))
    added = normal(*truth.shape, seed=2)
    near(way(maps, bias, added, least=0.0), (truth + added).clamp(min=0))


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), ((5, 3), (2, 0)), (1, 0), ((4, 6), 2)])
@pytest.mark.parametrize("large", [False, True])
def test_they_are_transposed(
    step: int,
    size: tuple[int, int],
    kernel: Any,
    padding: Any,
    large: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if large:  # for any cache
        monkeypatch.setattr(laid_out, "STREAM", 0)
        monkeypatch.setattr(depthwise, "second_cache", lambda: 0)
    module, x = layer(32, kernel, step, padding), normal(3, 32, *size, seed=1).double()
    if not suits(module, module.weight, x.float()):
        assert too_small(module, size)
        return
    x.requires_grad_()
    made = module.double()(x)
    gradients = normal(*made.shape, seed=2)
    (truth,) = torch.autograd.grad(made, x, gradients.double())
    way = Transposed(module.weight.float(), form_of(module), size)
    near(way(gradients), truth)
    by, below = normal(*x.shape, seed=3), normal(*x.shape, seed=4).abs() + 0.5
    near(way.scaled(gradients, by, below), truth * by / below)


def test_a_value_depends_on_its_window_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module, maps = layer(64, 5, 1, 2), normal(5, 64, 15, 23)
    way = Depthwise(module.weight, form_of(module))
    found = way(maps, module.bias)
    threads = torch.get_num_threads()
    monkeypatch.setattr(cores, "WORTH", 0)  # all work is divided
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(way(maps, module.bias), found)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(way(maps[3:4], module.bias), found[3:4])
    assert torch.equal(way(maps[..., :18], module.bias)[..., :16], found[..., :16])
    monkeypatch.setattr(laid_out, "STREAM", 0)
    assert torch.equal(way(maps, module.bias), found), "past the cache"


@pytest.mark.parametrize(
    ("module", "maps"),
    [
        (layer(40, 3, 1, 1), normal(2, 40, 9, 9)),
        (layer(32, 3, 3, 1), normal(2, 32, 9, 9)),
        (layer(32, 3, (1, 2), 1), normal(2, 32, 9, 9)),
        (layer(32, 9, 1, 4), normal(2, 32, 9, 9)),
        (layer(32, 3, 1, 2, dilation=2), normal(2, 32, 9, 9)),
        (layer(32, 3, 1, "same"), normal(2, 32, 9, 9)),
        (layer(32, 3, 1, 1, padding_mode="circular"), normal(2, 32, 9, 9)),
        (layer(32, 3, 1, 1), normal(2, 32, 9, 9).double()),
        (nn.Conv2d(32, 32, 3, 1, 1, groups=16), normal(2, 32, 9, 9)),
        (nn.Conv2d(32, 64, 3, 1, 1, groups=32), normal(2, 32, 9, 9)),
    ],
)
def test_others_are_left_to_pytorch(module: nn.Conv2d, maps: Tensor) -> None:
    assert suits(layer(32, 3, 1, 1), normal(32, 1, 3, 3), normal(2, 32, 9, 9))
    assert not suits(module, module.weight, maps)


def test_weights_of_another_form_are_refused() -> None:
    module, maps = layer(32, 3, 1, 1), normal(2, 32, 9, 9)
    assert not suits(module, torch.cat([module.weight, module.weight], 1), maps)
    way = Transposed(module.weight, form_of(module), (9, 9))
    for wrong in (normal(2, 16, 9, 9), normal(2, 32, 9, 8)):
        with pytest.raises(ValueError, match="fit"):
            way.scaled(maps, wrong, wrong)
    with pytest.raises(ValueError, match="fit"):
        way(normal(2, 16, 9, 9))


class Whole(fx.Tracer):
    """Does not look into modules of our own."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_borders_that_are_even_on_no_side_are_not_made(
    step: int, kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pad = m.SamePad((kernel, kernel), (step, step), (1, 1))
            self.depth = layer(32, kernel, step, 0)
            self.cut = nn.ReLU6()

        def forward(self, x: Tensor) -> Any:
            return self.cut(self.depth(self.pad(x)))

    def refused(*_: Any) -> Any:
        raise AssertionError("the map has been surrounded by zeros")

    model, x = Small(), normal(2, 32, 12, 11).contiguous(memory_format=torch.channels_last)
    program = fuse(fx.GraphModule(model, Whole().trace(model)))
    real = fusing.Bordered.forward
    monkeypatch.setattr(fusing.Bordered, "forward", refused)
    truth = copy.deepcopy(model).double()(x.double())
    near(program(x), truth)
    monkeypatch.setattr(fusing.Bordered, "forward", real)
    monkeypatch.setattr(quick, "convolution", lambda *_: None)
    near(program(x), truth)
