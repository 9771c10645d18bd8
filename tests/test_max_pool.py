"""The highest values of windows are those of PyTorch's pooling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from explorer.networks import cores, max_pool
from explorer.networks.fusing import fuse
from explorer.networks.machine_code import PROCESSORS


@pytest.fixture(params=PROCESSORS, autouse=True)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(max_pool, "registers", lambda: PROCESSORS[request.param])


def drawn(*shape: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kernel", "step", "before"), [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 3, 2)])
@pytest.mark.parametrize("size", [(5, 5), (12, 9), (7, 14)])
@pytest.mark.parametrize("channels", [64, 192])
def test_the_highest_values_are_those_of_pytorch(
    kernel: int, step: int, before: int, size: tuple[int, int], channels: int
) -> None:
    pool, maps = nn.MaxPool2d(kernel, step, before), drawn(3, channels, *size)
    maps[0, 1], maps[0, 2, 1, 1], maps[1, 5, 3, 3] = -math.inf, math.inf, math.nan
    assert max_pool.suits(pool, maps)
    found, truth = max_pool.highest(pool, maps), pool(maps)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found.isnan(), truth.isnan())
    assert torch.equal(found.nan_to_num(7e4), truth.nan_to_num(7e4))
    assert bool(found[1, 5].isnan().any())


def test_maps_on_several_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "WORTH", 0)  # all work is divided
    pool, maps = nn.MaxPool2d(3, 2, 1), drawn(3, 64, 13, 10)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(max_pool.highest(pool, maps), pool(maps))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("pool", "maps"),
    [
        (nn.MaxPool2d(3, 2, 1, dilation=2), drawn(2, 64, 9, 9)),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), drawn(2, 64, 9, 9)),
        (nn.MaxPool2d(3, 2, 1, return_indices=True), drawn(2, 64, 9, 9)),
        (nn.MaxPool2d((3, 2), 2), drawn(2, 64, 9, 9)),
        (nn.MaxPool2d(3, (2, 1)), drawn(2, 64, 9, 9)),
        (nn.MaxPool2d(3, 2, 1), drawn(2, 64, 2, 9)),
        (nn.MaxPool2d(3, 2, 1), drawn(2, 24, 9, 9)),
        (nn.MaxPool2d(3, 2, 1), drawn(2, 64, 9, 9).contiguous()),
        (nn.MaxPool2d(3, 2, 1), drawn(2, 64, 9, 9).double()),
        (nn.MaxPool2d(3, 2, 1), drawn(2, 64, 9, 9)[0]),
    ],
)
def test_others_are_left_to_pytorch(pool: nn.MaxPool2d, maps: Tensor) -> None:
    assert not max_pool.suits(pool, maps)
    if pool.padding == 1:
        assert max_pool.suits(nn.MaxPool2d(3, 2, 1), drawn(2, 64, 9, 9))
    found, truth = max_pool.MaxPool(pool)(maps), pool(maps)
    for one, other in zip(found, truth, strict=True):
        assert torch.equal(one, other)


def test_a_network_pools_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 64, 3)
            self.pool = nn.MaxPool2d(3, 2, 1)

        def forward(self, x: Tensor) -> Any:
            return self.pool(self.first(x))

    taken = []
    highest = max_pool.highest

    def noted(pool: nn.MaxPool2d, maps: Tensor) -> Tensor:
        taken.append(pool)
        return highest(pool, maps)

    monkeypatch.setattr(max_pool, "highest", noted)
    model, x = Small().requires_grad_(False), drawn(2, 3, 12, 12)
    model.to(memory_format=torch.channels_last)
    program = fuse(torch.fx.symbolic_trace(model))
    assert torch.equal(program(x), model(x))
    assert taken == [model.pool]
